"""What is recorded: runs, the files on them, and the ledger of the sealed test splits."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fer_experiments.errors import UserError, first_line
from fer_experiments.terminal import say
from fer_experiments.tracking.moved import is_moved, present
from fer_experiments.tracking.outages import is_lost
from fer_experiments.tracking.store import Store, client_of

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

Parsed = TypeVar("Parsed")

OPENED = "fer.test_opened"  # tag of a run that read the sealed test split of the dataset with this fingerprint
IMAGES = {split: f"fer.{split}_images" for split in ("train", "val", "test")}  # tags: `images_digest` of a split

SEEDS = "fer.seeds"  # tag of a run whose children repeat the run with this id over seeds


class FoundRun(NamedTuple):
    """A recorded run. started, ended: milliseconds since 1970; an open run has no end."""

    run_id: str
    name: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    started: int
    ended: int | None


def find_run(store: Store, run_id: str) -> FoundRun | None:
    """The run with this id, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return _found(client_of(store).get_run(run_id))
    except MlflowException as error:
        if is_lost(error):
            raise
        return None


def experiment_of(store: Store, run_id: str) -> str | None:
    """The name that the experiment of a run has by now; None where there is no such run."""
    from mlflow.exceptions import MlflowException

    client = client_of(store)
    try:
        return str(client.get_experiment(client.get_run(run_id).info.experiment_id).name)
    except MlflowException as error:
        if is_lost(error):
            raise
        return None


def find_runs(
    store: Store, tags: Mapping[str, str] | None = None, status: str | None = None, *, deleted: bool = False
) -> list[FoundRun]:
    """The runs of the store's experiment that have these tags, the oldest first; empty when it is not there.

    deleted: with those that were deleted in the UI.
    """
    from mlflow.entities import ViewType

    client = client_of(store)
    experiment = client.get_experiment_by_name(store.experiment)
    if experiment is None:
        return []
    wanted = [f"tags.`{key}` = '{value}'" for key, value in (tags or {}).items()]
    query = " and ".join(wanted + ([f"attributes.status = '{status}'"] if status else []))
    ids = [experiment.experiment_id]
    view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    return [_found(run) for run in every(client.search_runs, ids, query, view, order_by=["start_time ASC"])]


def openings(store: Store, fingerprint: str, digest: str) -> list[FoundRun]:
    """The ledger of a test split: the runs that opened it, of all experiments, deleted ones too, the oldest first.

    fingerprint: of a dataset that it is of. digest: of the split itself, which other choices of training images leave
    as it is; runs of older versions, which ended before they had told it, have the fingerprint alone.
    """
    tags = {OPENED: fingerprint, **({IMAGES["test"]: digest} if digest else {})}
    found = [
        run for tag, value in tags.items() for run in find_everywhere(store, f"tags.`{tag}` = '{value}'", deleted=True)
    ]
    opened = {run.run_id: run for run in found if OPENED in run.tags}
    return sorted(opened.values(), key=lambda run: run.started)


def find_everywhere(store: Store, query: str, *, deleted: bool = False) -> list[FoundRun]:
    """The runs of all experiments that a query of MLflow's finds, the oldest first; deleted: with deleted ones."""
    from mlflow.entities import ViewType

    client, view = client_of(store), ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    ids = [experiment.experiment_id for experiment in every(client.search_experiments, view_type=view)]
    return [_found(run) for run in every(client.search_runs, ids, query, view, order_by=["start_time ASC"])]


def every(search: Callable[..., Any], *args: Any, **options: Any) -> Iterator[Any]:
    """All that a search of MLflow's client finds, which it gives page by page."""
    token = None
    while True:
        page = search(*args, **options, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def artifact(store: Store, run_id: str, path: str, folder: str | Path) -> Path:
    """A run's artifact on this machine: downloaded into `folder`, or in place.

    Raises:
        Exception: it is not there (MLflow: an OSError or one of its own, by the kind of store).
    """
    client = client_of(store)
    if is_moved(store.uri):
        root = present(store.uri, client.get_run(run_id).info.artifact_uri)
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(f"{root}/{path}"))
    return Path(client.download_artifacts(run_id, path, str(folder)))


def artifact_text(store: Store, run_id: str, path: str) -> str | None:
    """The text of an artifact, or None when the run does not have it."""
    content = artifact_bytes(store, run_id, path)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return None


def artifact_json(store: Store, run_id: str, path: str, like: Any = None, remedy: str = "") -> Any:
    """What an artifact says as JSON; see `artifact_parsed`.

    like: an example of what it must hold at least: of a mapping the keys, of a list the kind of each entry.
    """

    def read(text: str) -> Any:
        value = json.loads(text)
        if not _is_like(value, like):
            raise ValueError("it is not what was written")
        return value

    return artifact_parsed(store, run_id, path, read, remedy)


def artifact_table(store: Store, run_id: str, path: str, columns: Collection[str] = ()) -> pd.DataFrame | None:
    """What an artifact says as CSV with these columns at least, where `id` is text; see `artifact_parsed`."""
    import pandas as pd

    def read(text: str) -> pd.DataFrame:
        if not text.endswith("\n"):
            raise ValueError("its last line has no end")
        table = pd.read_csv(io.StringIO(text), dtype={"id": str})
        if missing := [name for name in columns if name not in table]:
            raise ValueError(f"it has no column {missing[0]}")
        return table

    return artifact_parsed(store, run_id, path, read)


def artifact_parsed(
    store: Store, run_id: str, path: str, reader: Callable[[str], Parsed], remedy: str = ""
) -> Parsed | None:
    """What a reader makes of an artifact's text; None when the run does not have it.

    One that the reader cannot take, whatever it raises, is passed over, which a line says.

    Raises:
        UserError: instead, where there is a remedy, with it.
    """
    content = artifact_bytes(store, run_id, path)
    try:
        return None if content is None else reader(content.decode())
    except Exception as error:
        said = f"run {run_id}: {path} cannot be read ({first_line(error)})"
        if remedy:
            raise UserError(f"{said}; {remedy}") from error
        say(f"{said}, and is passed over", sys.stderr)
        return None


def _is_like(value: Any, like: Any) -> bool:
    if isinstance(like, dict):
        return isinstance(value, dict) and all(key in value and _is_like(value[key], like[key]) for key in like)
    if isinstance(like, list):
        return isinstance(value, list) and all(_is_like(each, kind) for each in value for kind in like)
    return like is None or isinstance(value, int | float if isinstance(like, int) else type(like))


def artifact_bytes(store: Store, run_id: str, path: str) -> bytes | None:
    """What is in an artifact, or None when the run does not have it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return artifact(store, run_id, path, folder).read_bytes()
        except Exception as error:
            if is_lost(error):
                raise
            return None


def _found(run: Run) -> FoundRun:
    info, data = run.info, run.data
    told = (data.params, data.metrics, data.tags, info.start_time, info.end_time)
    return FoundRun(info.run_id, str(info.run_name), str(info.status), *told)
