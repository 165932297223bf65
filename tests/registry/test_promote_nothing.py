"""Promotion without a sweep: an empty store, the name of a model, the kind of a refusal."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fer_experiments import cli
from fer_experiments.config import DataConfig
from fer_experiments.config.compose import compose
from fer_experiments.errors import Refused, UserError
from fer_experiments.registry.assembly import check_choices, write_model
from fer_experiments.tracking import models

TUNED = ["training=finetune", "training.unfreeze=2"]


def test_where_nothing_is_recorded_nothing_is_created(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for verb in ("promote", "rollback", "models"):
        assert cli.main([verb, f"paths.mlruns={tmp_path / 'mlruns'}"]) == 2
        assert "mlflow.db: nothing is recorded there yet; `" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_demo_faces_never_reach_a_real_models_name():
    assert models.model_name(DataConfig(name="demo", task="happy", source="demo")) == "fer-demo"
    assert models.model_name(DataConfig(name="fer2013", task="happy")) == "fer-happy"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["promote.ensemble=seeds"], "data.fold=all: its heads have learned from each other's folds"),
        (["promote.abstain=0.1"], "data.fold=all: its heads have learned from each other's folds"),
        (["promote.ensemble=top_k", *TUNED], "promote.ensemble=top_k: fine-tuned networks have no backbone in common"),
        (["promote.abstain=0"], "promote.abstain=0: a class is called uncertain already"),
    ],
)
def test_what_no_refit_could_give_is_refused_before_any_is_made(asked: list[str], said: str):
    config = compose(["promote=default", *asked])
    dataset: Any = SimpleNamespace(folds="data.fold" in said, classes=("happy", models.UNCERTAIN))
    assert config.promote is not None
    with pytest.raises(UserError, match=f"^{said}"):
        check_choices(config.promote, dataset, [compose([]), config])


def test_too_few_images_to_check_a_model_on_are_named_before_anything_is_fitted(tmp_path: Path):
    config = compose(["promote=default", "data=demo"])
    assert config.promote is not None
    few: Any = SimpleNamespace(folds=(), classes=("happy", "sad"), images=np.zeros((31, 1, 1)))
    with pytest.raises(UserError, match=r"^data=demo: 31 images to train and .*; it takes 32 to check .*; add some$"):
        check_choices(config.promote, few, [config])
    prepared: Any = SimpleNamespace(dataset=few)
    with pytest.raises(UserError, match="31 images"):  # of a trial that had fewer than the first one
        write_model(config, prepared, SimpleNamespace(heads=[]), tmp_path / "model", print)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    few.images = np.zeros((32, 1, 1))
    check_choices(config.promote, few, [config])


def test_a_refusal_is_no_mistake_of_the_user():
    assert not issubclass(Refused, UserError)


@pytest.mark.parametrize("verb", ["promote", "seeds"])
@pytest.mark.parametrize("word", ["head.l2=1", "data=fer2013", "data.limit=9", "head=conv"])
def test_what_is_taken_from_a_record_is_not_said_otherwise(
    verb: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main([verb, word, f"paths.mlruns={tmp_path}/m"]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith(f"fer {verb}: {word}: the experiment is what is on record; leave it out")
        and said.count("\n") == 1
    )
    assert not (tmp_path / "m").exists()
    assert cli.main([verb, "run=" + "0" * 32, "data.path=elsewhere", f"paths.mlruns={tmp_path}/m"]) == 2
    assert "is on record; leave" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "word"),
    [
        ("seeds", "promote.seeds=5"),
        ("seeds", "promote=default"),
        ("seeds", "gate=strict"),
        ("seeds", "sweep=quick"),
        ("seeds", "pretrain=pocket"),
        ("promote", "pretrain=pocket"),
    ],
)
def test_what_a_command_makes_nothing_of_is_not_said(
    verb: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = ["run=" + "0" * 32, f"paths.mlruns={tmp_path}/m"]
    assert cli.main([verb, word, *run]) == 2
    assert capsys.readouterr().err == f"fer {verb}: {word}: this command makes nothing of it; leave it out\n"
    assert cli.main(["promote", "promote.seeds=5", "gate=strict", "gate.alpha=0.1", *run]) == 2
    assert "nothing is recorded there yet" in capsys.readouterr().err


def test_models_of_drawn_faces_share_their_name_with_no_others():
    with pytest.raises(
        UserError, match=r"^data\.task=demo: is of drawn faces; say data=demo, or name the task otherwise$"
    ):
        compose(["data=image_folder", "data.path=/x", "data.task=demo"])
