"""What can be removed, and what cannot."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import start
from stores import config_in

from fer_experiments import tracking
from fer_experiments.config import Config, PathsConfig, SweepConfig, mlruns_dir
from fer_experiments.errors import UserError
from fer_experiments.registry import clean as room
from fer_experiments.registry.clean import clean
from fer_experiments.search.state import State, digest_of, only_one
from fer_experiments.search.trials import Trial
from fer_experiments.tracking.store import client_of

METRICS = {"final/val_accuracy_low": 0.4, "final/val_accuracy_high": 0.6}
Kept = tuple[Config, tracking.Store, State, Path]


def trial_run(store: tracking.Store, sweep: str, number: int) -> str:
    with start(store, kind="trial", tags={"fer.sweep_id": sweep, "fer.trial_number": number}) as run:
        run.log_text("h" * 1000, "model/data/model.keras")
        run.log_text("config", "config.yaml")
        return str(run.id)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """A sweep of three trials with heads, the last of which a promotion was made of."""
    places = PathsConfig(str(tmp_path / "mlruns"), str(tmp_path / "cache"))
    config = replace(config_in(tmp_path / "mlruns"), paths=places)
    store = tracking.connect(config)
    own = {f"sweep.{key}": value for key, value in vars(SweepConfig(name="one")).items()}
    identity = {**own, "sweep.space": {}, "data.task": "test"}
    state = State(f"one-{digest_of(identity)}", "one", identity, status="finished", order=[0, 0, 1, 1, 2, 2])
    with start(store, kind="sweep", tags={"fer.sweep_id": state.id}) as parent:
        state.run_id = parent.id
    for number, score in enumerate((0.7, 0.9, 0.5)):
        known = {"score": score, "told": score, "epochs": 1, "best_epoch": 0, "seconds": 1.0, "metrics": METRICS}
        run_id = trial_run(store, state.id, number)
        state.trials.append(Trial(number=number, trial_id=str(number), status="finished", run_id=run_id, **known))
    with start(store, kind="promotion", tags={"fer.sweep_id": state.id}) as promotion:
        promotion.log_json([{"run_id": state.trials[2].run_id}], "refits.json")
    folder = mlruns_dir(config) / "sweeps" / state.id
    state.save(folder)
    return config, store, state, folder


def heads(config: Config) -> set[str]:
    return {file.parents[3].name for file in mlruns_dir(config).glob("artifacts/fer/test/*/artifacts/model/data/*")}


def test_heads_beyond_keep_go_after_a_yes_and_a_promotions_stay(kept: Kept):
    config, _, state, folder = kept
    said: list[str] = []
    assert clean(config, echo=said.append) == "nothing to remove", "the sweep was told to keep all"
    assert clean(config, "best:1", echo=said.append) == "nothing was removed; fer clean --yes removes 1.0 kB"
    assert said[-1].splitlines()[1].split() == f"1 head of sweep {state.id} (keep=best:1) 1.0 kB".split()
    assert len(heads(config)) == 3
    with only_one(folder, state.id):
        assert clean(config, "best:1", yes=True, echo=said.append) == "nothing to remove", "it runs"
    assert clean(config, "best:1", yes=True, echo=said.append) == "removed 1.0 kB"
    assert heads(config) == {state.trials[1].run_id, state.trials[2].run_id}
    assert clean(config, "best:1", yes=True, echo=said.append) == "nothing to remove"


def test_heads_that_hyperband_goes_on_with_stay_until_it_has_nothing_more_to_try(kept: Kept):
    config, store, state, folder = kept
    identity = {**state.identity, "sweep.oracle": "hyperband"}
    sweep = replace(state, id=f"one-{digest_of(identity)}", identity=identity)
    (folder / "state.json").unlink()
    for trial in sweep.trials:
        client_of(store).set_tag(trial.run_id, "fer.sweep_id", sweep.id)
    over = "the hyperband oracle, which has nothing more to try"
    for reason, came in (("sweep.max_trials=3", "nothing to remove"), (over, "removed 3.0 kB")):
        sweep.reason = reason
        for failed, removed in ((True, "nothing to remove"), (False, came)):  # sweep.retry_failed may run it again
            last = replace(sweep.trials[-1], status="failed", score=None) if failed else sweep.trials[-1]
            replace(sweep, trials=[*sweep.trials[:-1], last]).save(folder.with_name(sweep.id))
            assert clean(config, "none", yes=True, echo=lambda line: None) == removed


def test_deleted_runs_go_but_for_those_on_a_leaderboard_or_in_the_ledger(kept: Kept):
    config, store, state, _ = kept
    with start(store, name="a try") as forgotten:
        forgotten.log_text("x" * 2000, "config.yaml")
    with start(store, tags={tracking.OPENED: "f" * 64}) as opened:
        pass
    for run_id in (forgotten.id, opened.id, state.trials[0].run_id):
        client_of(store).delete_run(run_id)
    said: list[str] = []
    assert clean(config, yes=True, echo=said.append) == "removed 2.0 kB"
    assert f"deleted run a try ({forgotten.id})" in said[0] and said[0].count("\n") == 1
    assert tracking.find_run(store, forgotten.id) is None
    assert not (mlruns_dir(config) / "artifacts" / "fer" / "test" / forgotten.id / "artifacts" / "config.yaml").exists()
    assert tracking.find_run(store, opened.id) and tracking.find_run(store, str(state.trials[0].run_id))


def test_the_head_of_a_trial_that_was_deleted_in_the_ui_goes_too(kept: Kept):
    config, store, state, _ = kept
    client_of(store).delete_run(str(state.trials[0].run_id))
    assert clean(config, "best:1", yes=True, echo=lambda line: None) == "removed 1.0 kB"
    assert clean(config, "best:1", yes=True, echo=lambda line: None) == "nothing to remove"


def test_runs_of_others_and_of_any_registered_version_stay(kept: Kept):
    config, store, *_ = kept
    client = client_of(store)
    theirs = (mlruns_dir(config) / "artifacts" / "theirs").as_uri()
    other = client.create_run(client.create_experiment("of another team", theirs)).info.run_id
    client.log_text(other, "x" * 2000, "weights.txt")
    with start(store) as made:
        made.log_text("x" * 2000, "model/MLmodel")
    client.create_registered_model("production")
    client.create_model_version("production", f"{client.get_run(made.id).info.artifact_uri}/model", made.id)
    for run_id in (other, made.id):
        client.delete_run(run_id)
    assert clean(config, yes=True, echo=lambda line: None) == "nothing to remove"


def test_nothing_of_the_store_that_a_database_was_copied_from_is_removed(kept: Kept, tmp_path: Path):
    config, _, state, _ = kept
    copy = tmp_path / "copy"
    shutil.copytree(mlruns_dir(config), copy, ignore=shutil.ignore_patterns("artifacts"))
    elsewhere = replace(config, paths=replace(config.paths, mlruns=str(copy)))
    with pytest.raises(UserError, match="of another store; nothing there is removed"):
        clean(elsewhere, "none", yes=True, echo=lambda line: None)
    assert len(heads(config)) == len(state.trials)


def test_what_can_be_made_again_goes_by_its_last_use(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, *_ = kept
    cache = tmp_path / "cache"

    def used(folder: Path, days: int) -> None:
        os.utime(folder, (time.time() - days * 86400,) * 2)

    for name, days in (("features/old", 31), ("features/new", 29), ("finetune/old", 40), ("pretrain/old", 40)):
        (cache / name).mkdir(parents=True)
        (cache / name / "0.npy").write_bytes(b"f" * 4000)
        used(cache / name, days)
    (cache / "features" / ".DS_Store").write_text("")
    used(cache / "features" / ".DS_Store", 99)
    (cache / "features" / "link").symlink_to(cache / "finetune" / "old")
    said: list[str] = []
    assert clean(config, echo=said.append) == "nothing was removed; fer clean --yes removes 12.0 kB"
    assert "features old, last used 31 days ago" in said[0]

    def after_a_while(total: str) -> bool:
        used(cache / "pretrain" / "old", 0)
        used(cache / "features" / "old", 32)  # a day later
        return True

    monkeypatch.setattr(room, "_agreed", after_a_while)
    kept_back = "1 of the list stayed, which changed meanwhile"
    assert clean(config, echo=said.append) == f"removed 8.0 kB; {kept_back}", "but for what was used since"
    left = sorted(str(folder.relative_to(cache)) for folder in cache.glob("*/*"))
    assert left == ["features/.DS_Store", "features/link", "features/new", "pretrain/old"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"kept": "best"}, "^keep=best: must be all"), ({"days": "-1"}, "days=-1: must be a whole number")],
)
def test_what_says_nothing_is_refused(kept: Kept, asked: dict[str, str], said: str):
    with pytest.raises(UserError, match=said):
        clean(kept[0], **asked)  # type: ignore[arg-type]
