"""What is taken away from runs that are recorded: their rows stay."""

from __future__ import annotations

from fer_experiments.tracking.store import Store, client_of

HEAD = "fer.head"  # tag of a run whose head is gone, and why


def drop_head(store: Store, run_id: str, why: str) -> None:
    """Deletes the head (artifact model/) of a run, which says so from then on; one that is gone is no error."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = client_of(store)
    uri = client.get_run(run_id).info.artifact_uri
    get_artifact_repository(uri, tracking_uri=store.uri).delete_artifacts("model")
    client.set_tag(run_id, HEAD, f"deleted: {why}")
