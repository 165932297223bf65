from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_experiments.backbones import pocket
from fer_experiments.config import Config, DataConfig, PathsConfig, PretrainConfig, TrackingConfig
from fer_experiments.data import Dataset, load_dataset
from fer_experiments.errors import UserError
from fer_experiments.experiment.pretrain import checkpoint_dir, run_pretrain
from fer_experiments.files import holding
from fer_experiments.tracking import connect
from fer_experiments.training.pretraining import PretrainResult, pretrain, recipe

RECIPE = PretrainConfig(name="tiny", widths=[8, 8], blocks=[1, 1], epochs=3, batch_size=16, warmup_epochs=1, ema=0.9)
CLASSES = {"negative": ["angry", "fear", "sad"], "positive": ["happy"]}
DEMO = DataConfig(name="demo", task="demo", source="demo", classes=CLASSES, demo_size=160)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(DEMO)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished")


@pytest.fixture(scope="module")
def whole(dataset: Dataset, finished: Path) -> PretrainResult:
    return pretrain(dataset, RECIPE, checkpoint_dir=finished)


def same(first: PretrainResult, second: PretrainResult) -> None:
    pd.testing.assert_frame_equal(first.history, second.history, rtol=1e-4)
    assert first.best_epoch == second.best_epoch
    np.testing.assert_allclose(first.val_probabilities, second.val_probabilities, atol=1e-3)


def test_history_has_a_row_an_epoch_and_warms_up_and_cools_down(whole: PretrainResult) -> None:
    expected = ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "learning_rate"]
    assert list(whole.history) == expected
    assert len(whole.history) == RECIPE.epochs
    rate = whole.history["learning_rate"]
    assert rate[0] == pytest.approx(RECIPE.learning_rate)
    assert rate[2] < rate[1] < rate[0]


def test_probabilities_are_those_of_the_best_epoch(whole: PretrainResult, dataset: Dataset) -> None:
    np.testing.assert_allclose(whole.val_probabilities.sum(axis=1), 1, atol=1e-5)
    accuracy = np.mean(whole.val_probabilities.argmax(axis=1) == dataset.labels[dataset.val])
    assert accuracy == whole.history["val/accuracy"][whole.best_epoch] == whole.history["val/accuracy"].max()


def test_a_killed_training_goes_on_to_the_same_end(whole: PretrainResult, dataset: Dataset, tmp_path: Path) -> None:
    def kill(epoch: int, row: dict[str, float]) -> None:
        if epoch == 1:
            raise Killed

    with pytest.raises(Killed):
        pretrain(dataset, RECIPE, checkpoint_dir=tmp_path, on_epoch=kill)
    epochs: list[int] = []
    resumed = pretrain(dataset, RECIPE, checkpoint_dir=tmp_path, on_epoch=lambda epoch, row: epochs.append(epoch))
    assert epochs == [2]
    same(resumed, whole)


def test_a_finished_training_trains_no_more(whole: PretrainResult, dataset: Dataset, finished: Path) -> None:
    def refuse(epoch: int, row: dict[str, float]) -> None:
        raise AssertionError("trained again")

    same(pretrain(dataset, RECIPE, checkpoint_dir=finished, on_epoch=refuse), whole)


def test_a_training_whose_loss_is_not_a_number_stores_nothing(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a number in epoch 1: try a smaller pretrain\.learning_rate"):
        pretrain(dataset, replace(RECIPE, learning_rate=1e30, warmup_epochs=0), checkpoint_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_training_with_class_weights_has_a_state_of_its_own(dataset: Dataset) -> None:
    """No fingerprint covers the weights. One without has the state of earlier versions."""
    config = Config(data=DEMO)
    folder = checkpoint_dir(config, RECIPE, dataset)
    earlier = json.dumps([recipe(RECIPE), dataset.fingerprint], sort_keys=True)
    assert folder.name == hashlib.sha256(earlier.encode()).hexdigest()[:16]
    assert checkpoint_dir(config, RECIPE, replace(dataset, class_weight={0: 0.7, 1: 2.0})) != folder


def one_epoch(folder: Path, output: Path | None = None) -> Config:
    return Config(
        data=DEMO,
        pretrain=replace(RECIPE, epochs=1, output=output and str(output)),
        paths=PathsConfig(mlruns=str(folder / "mlruns"), cache=str(folder / "cache")),
        tracking=TrackingConfig(system_metrics=False),
    )


def test_run_records_the_training_and_opens_the_test_only_when_asked(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    config = one_epoch(tmp_path, tmp_path / "out" / "pocket.npz")
    lines: list[str] = []
    final = run_pretrain(config, echo=lines.append)
    assert "final/val_accuracy" in final
    assert not any(name.startswith("final/test") for name in final)

    opened = replace(config, pretrain=replace(config.pretrain, open_test=True))
    again = run_pretrain(opened, echo=lines.append)
    assert {name: again[name] for name in final} == pytest.approx(final)
    assert sum(line.startswith("epoch 1 of 1") for line in lines) == 1  # the second run found it finished

    client = MlflowClient(connect(config).uri)
    experiment = client.get_experiment_by_name("fer/demo")
    assert experiment is not None
    latest, first = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    assert "fer.test_opened" not in first.data.tags
    assert latest.data.tags["fer.test_opened"] == latest.data.tags["fer.dataset"]
    assert latest.data.metrics["final/test_accuracy"] == pytest.approx(again["final/test_accuracy"])
    assert len(client.get_metric_history(latest.info.run_id, "val/accuracy")) == 1
    assert list(files(client, latest.info.run_id, "weights")) == ["weights/pocket.npz"]
    assert pocket.load_classifier(tmp_path / "out" / "pocket.npz").output_shape == (None, 2)


def files(client: object, run_id: str, folder: str) -> Iterator[str]:
    return (file.path for file in client.list_artifacts(run_id, folder))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(data=DEMO), "pretrain=pocket"),
        (Config(data=DEMO, pretrain=replace(RECIPE, blocks=[1])), "pretrain.blocks"),
    ],
)
def test_a_recipe_that_makes_no_network_is_refused(config: Config, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_pretrain(config)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("folder", "is a folder; name a file in it, such as .*folder/pocket.npz"),
        ("file/pocket.npz", r"cannot be written \("),
        ("file/below/pocket.npz", r"cannot be written \("),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_training(
    tmp_path: Path, output: str, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"^pretrain.output={re.escape(str(tmp_path / output))}: {said}"):
        run_pretrain(one_epoch(tmp_path, tmp_path / output))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_one_network_is_trained_by_one_process_at_a_time(tmp_path: Path, dataset: Dataset) -> None:
    config = one_epoch(tmp_path)
    assert config.pretrain is not None
    folder = checkpoint_dir(config, config.pretrain, dataset)
    said = f"^{re.escape(str(folder))}: another process trains the same network; wait for it, or stop it$"
    with holding(folder / "lock", "held"), pytest.raises(UserError, match=said):
        run_pretrain(config)
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert not (tmp_path / "mlruns").exists()
