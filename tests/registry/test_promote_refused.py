"""What is not promoted leaves the registry as it was, and says why."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from forked import Command
from forked import run as fer
from PIL import Image
from promoted_sweep import FEW, MODEL, Room, data_of

from fer_experiments import cli, tracking
from fer_experiments.config.commands import override
from fer_experiments.config.compose import compose
from fer_experiments.data import open_test_split
from fer_experiments.errors import UserError
from fer_experiments.experiment.train import train
from fer_experiments.registry.promote import promote
from fer_experiments.registry.sealed import PROBABILITIES
from fer_experiments.registry.versions import crown, rollback
from fer_experiments.tracking import models
from fer_experiments.tracking.store import client_of


def test_a_dry_run_says_what_would_happen_and_registers_nothing(room: Room, capsys: pytest.CaptureFixture[str]):
    before, aliases = models.versions(room.store, MODEL), room.aliases()
    options = [
        f"sweep={room.state.id}",
        "promote.top_k=2",
        "promote.seeds=2",
        "promote.dry_run=true",
        *FEW,
        *room.options,
    ]
    assert cli.main(["promote", *options]) == 0
    told = capsys.readouterr().out
    assert "dry run: it would be registered as fer-demo" in told
    assert told.count("on record as run") == 4  # what an earlier promotion has fitted is not fitted again
    assert (models.versions(room.store, MODEL), room.aliases()) == (before, aliases)


def test_a_worse_model_is_refused_with_each_reason(room: Room, first_again: None, capsys: pytest.CaptureFixture[str]):
    bad = ["data=demo", "data.demo_size=1500", "backbone=pocket", "head=linear", "training.epochs=1"]
    train(compose([*bad, "training.learning_rate=1e-6", *room.options]), echo=lambda line: None)
    worse = [run for run in room.runs(kind="train") if "mlflow.parentRunId" not in run.tags][-1]
    before, aliases = models.versions(room.store, MODEL), room.aliases()
    options = [f"run={worse.run_id}", "promote.seeds=1", "+gate.ceilings.brier_score=0.01", *FEW, *room.options]
    assert cli.main(["promote", *options]) == 3
    error = capsys.readouterr().err
    assert "not worse than the champion, version 1" in error and "McNemar" in error
    assert "brier_score at most 0.01: 0." in error and len(error.strip().splitlines()) == 1
    assert (models.versions(room.store, MODEL), room.aliases()) == (before, aliases)
    refused = room.runs(kind="promotion")[-1]
    assert (refused.status, refused.tags["fer.gate"]) == ("FINISHED", "refused")


def test_a_model_that_is_better_on_average_and_worse_on_one_emotion_is_refused(
    room: Room, first_again: None, capsys: pytest.CaptureFixture[str]
):
    """The champion's record says that it is right about the emotion on which the model itself is weakest."""
    champion = models.find_version(room.store, MODEL, "1")
    assert champion is not None
    run = tracking.Run(room.store, champion.run_id)
    recorded = tracking.artifact_text(room.store, run.id, PROBABILITIES)
    assert recorded is not None
    test, table = open_test_split(data_of(room)), pd.read_csv(io.StringIO(recorded))
    wrong = (table["probability_positive"] > 0.5) != (test.labels == 1)
    weakest = wrong.groupby(test.emotions).mean().idxmax()
    right = np.where(test.emotions == weakest, True, np.arange(len(wrong)) % 2 == 0)
    table["probability_positive"] = np.where(right, test.labels, 1 - test.labels)
    table["probability_negative"] = 1 - table["probability_positive"]
    asked = ["gate=none", "gate.compare=mcnemar", "gate.alpha=0.9", f"+gate.worse.emotion_{weakest}=0.001"]
    options = [f"sweep={room.state.id}", "promote.top_k=2", "promote.seeds=2", *FEW, *room.options]
    before, aliases = models.versions(room.store, MODEL), room.aliases()
    try:
        run.log_csv(table, PROBABILITIES)
        assert cli.main(["promote", *asked, *options]) == 3
    finally:
        run.log_text(recorded, PROBABILITIES)
    (told,) = capsys.readouterr().err.strip().splitlines()
    sentence = told.partition("the registry is as it was: ")[2]
    assert sentence.startswith(f"on emotion_{weakest} at most 0.001 worse than the champion, version 1 (p < 0.9): 0.")
    assert sentence.count("worse than the champion") == 1 and "McNemar's exact p = " in sentence
    assert (models.versions(room.store, MODEL), room.aliases()) == (before, aliases)


def test_a_model_that_cannot_be_served_leaves_the_registry(
    room: Room, first_again: None, monkeypatch: pytest.MonkeyPatch
):
    add_version = models.add_version

    def broken(*args: Any) -> models.Version:
        version = add_version(*args)
        network = next(models.fetch_model(room.store, version, Path("/nonexistent")).rglob("network.keras"))
        network.write_bytes(network.read_bytes()[:1000])
        return version

    monkeypatch.setattr(models, "add_version", broken)
    before, aliases = models.versions(room.store, MODEL), room.aliases()
    with pytest.raises(UserError, match=r"cannot be served \(.*network.keras is not what was registered"):
        promote(room.config("promote.seeds=1", "gate=none"), run_id=room.state.trials[0].run_id, echo=lambda line: None)
    assert (models.versions(room.store, MODEL), room.aliases()) == (before, aliases)


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(room: Room):
    before = models.versions(room.store, MODEL)[0].number
    command = ["promote", f"run={room.state.trials[0].run_id}", "promote.seeds=1", "gate=none", *FEW, *room.options]
    said = {process.wait(): process.stderr for process in [Command(*command) for _ in range(2)]}
    assert said.keys() == {0, 2}
    assert "another process is promoting or rolling back; wait for it" in said[2]
    newest = models.versions(room.store, MODEL)[0].number
    assert room.aliases()["champion"] == newest > before


def test_a_champion_that_another_machine_has_made_meanwhile_is_not_overwritten(room: Room, first_again: None):
    one = models.find_version(room.store, MODEL, "1")
    assert one is not None
    aliases = room.aliases()
    with pytest.raises(UserError, match="was version 99 when this promotion compared itself, and is version 1 now"):
        crown(room.store, replace(one, number=98), replace(one, number=99))
    with pytest.raises(UserError, match="was none"):
        crown(room.store, one, None)
    assert room.aliases() == aliases


def test_what_cannot_be_promoted_is_named(room: Room):
    for run, said in (
        ("0" * 32, "no such run"),
        (room.state.run_id, "a sweep's run: name one of its trials, or give `"),
    ):
        with pytest.raises(UserError, match=said):
            promote(room.config(), run_id=run, echo=lambda line: None)
    with pytest.raises(UserError, match="sweep=quik: no such sweep"):
        promote(room.config(), sweep="quik", echo=lambda line: None)
    with pytest.raises(UserError, match="version=77: fer-demo has no such version"):
        rollback(room.config("data=demo"), "77")
    with pytest.raises(UserError, match="nothing is registered"):
        rollback(room.config("data=fer2013"))
    with pytest.raises(UserError, match=r"gate\.slices: emotion_glad is no slice"):
        promote(room.config("+gate.slices.emotion_glad=0.5"), sweep=room.state.id, echo=lambda line: None)
    with pytest.raises(UserError, match=r"gate\.recall: glad is no class"):
        promote(room.config("+gate.recall.glad=0.5"), sweep=room.state.id, echo=lambda line: None)


def test_other_data_than_the_trial_had_are_refused(room: Room):
    client, run = client_of(room.store), room.state.trials[0].run_id
    was = client.get_run(run).data.tags["fer.dataset"]
    client.set_tag(run, "fer.dataset", "0" * 64)
    try:
        with pytest.raises(UserError, match=r"its dataset was 00000000 and is \w{8} now"):
            promote(room.config(), run_id=run, echo=lambda line: None)
    finally:
        client.set_tag(run, "fer.dataset", was)


def test_a_store_that_was_moved_goes_on_where_it_is(room: Room, tmp_path: Path):
    """Sweep, report, promotions and a prediction find everything, and leave nothing in the old place.

    In other processes: MLflow keeps in mind where a run's artifacts were.
    """
    old, new = Path(room.options[1].partition("=")[2]), tmp_path / "a b?#"
    shutil.move(old, new)
    where = [room.options[0], override("paths.mlruns", str(new)), room.options[2]]
    Image.fromarray(np.zeros((48, 48), "uint8")).save(tmp_path / "face.png")
    once = ["promote.top_k=1", "promote.seeds=1", "gate=none", *FEW, *where]
    verbs = [
        ["sweep", "sweep=quick", "data.demo_size=1500", "training.epochs=8", "sweep.max_trials=4", *where],
        ["report", f"sweep={room.state.run_id}", *where],
        ["promote", f"sweep={room.state.id}", "promote.dry_run=true", *once],
        ["promote", f"sweep={room.state.run_id}", *once],
        ["predict", str(tmp_path / "face.png"), "data=demo", *where],
        ["models", *where],
    ]
    try:
        done = [fer(*verb) for verb in verbs]
        assert [one.returncode for one in done] == [0] * len(verbs), [one.stderr for one in done]
        swept, reported, dry, promoted = (one.stdout for one in done[:4])
        assert f"sweep {room.state.id}: 4 trials" in swept
        assert str(new / "sweeps" / room.state.id / "report.html") in reported
        assert "dry run: it would be registered" in dry and "is the champion in place of" in promoted
        assert not old.exists()
    finally:
        shutil.move(new, old)
        tracking.connect(room.config())
