"""Comparisons of what is recorded in a real store, whose fits are made up: none of it depends on a network."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from parsed_page import Read
from stores import config_in

from fer_experiments import cli, tracking
from fer_experiments.config import Config, config_dir, flatten, folders, recorded, with_values
from fer_experiments.config.compose import compose
from fer_experiments.data import Dataset, images_digest, load_dataset
from fer_experiments.errors import UserError
from fer_experiments.evaluation.bootstrap import mcnemar
from fer_experiments.evaluation.seeds import spread
from fer_experiments.experiment.record import PREDICTIONS, describe_run, record
from fer_experiments.registry import sealed
from fer_experiments.report.compare import COLUMNS, compare
from fer_experiments.report.entries import entries
from fer_experiments.report.pairs import pairs
from fer_experiments.report.published import GROUP, published, published_names
from fer_experiments.tracking import models
from fer_experiments.tracking.store import client_of
from fer_experiments.training.result import TrainingResult


class Room(NamedTuple):
    """Runs by what they are: good and bad on the same images, weak as bad is, old without predictions, promoted."""

    config: Config
    ids: dict[str, str]
    said: dict[str, np.ndarray]
    dataset: Dataset


def probabilities(labels: np.ndarray, classes: int, wrong: int, seed: int) -> np.ndarray:
    """float32 [n, classes], with so many images taken for another class."""
    random = np.random.default_rng(seed)
    taken = labels.copy()
    rows = random.permutation(len(labels))[:wrong]
    taken[rows] = (taken[rows] + 1) % classes
    return (0.1 / classes + 0.9 * np.eye(classes)[taken]).astype("float32")


def log_fit(room: Room, name: str, config: Config, wrong: int, **options: Any) -> None:
    """A run of a fit that is made up, recorded as a real one is."""
    dataset, store = room.dataset, tracking.connect(config)
    labels = dataset.labels[dataset.val]
    said = probabilities(labels, len(dataset.classes), wrong, seed=len(room.ids))
    columns = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "learning_rate")
    history = pd.DataFrame([[0.5] * 5] * 3, columns=columns, index=pd.RangeIndex(3))
    model: Any = SimpleNamespace(trainable_variables=[np.zeros((4, 5)), np.zeros(5)])
    tags = {"fer.dataset": dataset.fingerprint, "fer.features": "f"}
    with tracking.start_run(store, "train", name, recorded(config), tags=tags, system_metrics=False, **options) as run:
        describe_run(run, dataset, recorded(config))
        result = TrainingResult(model, history, 1, said, labels, 8985.0)
        record(run, dataset, [result], result)
    room.ids[name], room.said[name] = run.id, said


def log_promotion(room: Room, name: str, wrong: int, *, digest: bool = True) -> None:
    """A registered version of the heads of `good` and `weak`; without a digest of `good`, by an earlier program."""
    store = tracking.connect(room.config)
    labels, images = (array[room.dataset.train][:30] for array in (room.dataset.labels, room.dataset.images))
    said = probabilities(labels, len(room.dataset.classes), wrong, seed=9)
    tags = {"fer.dataset": room.dataset.fingerprint, tracking.OPENED: room.dataset.fingerprint}
    with tracking.start_run(store, "promotion", name, tags=tags, system_metrics=False) as run:
        run.log_params(flatten(recorded(room.config)) | {"training.seed": 0})
        run.log_json([{"runs": {"0": room.ids["good"]}}], "refits.json")
        if digest:
            run.log_json(
                [{"runs": [room.ids["good"], room.ids["weak"]]}, {"runs": [room.ids["good"]]}], "ensemble.json"
            )
        ends = {"": 0.9, "_low": 0.8, "_high": 0.97}
        run.log_metrics({f"final/test_accuracy{end}": value for end, value in ends.items()})
        run.log_metrics({"model/mb": 4.2, "model/latency_ms": 12.0, "model/parameters": 1000.0})
        named = {f"probability_{c}": said[:, i] for i, c in enumerate(room.dataset.classes)}
        run.log_csv(pd.DataFrame({"id": np.arange(30), "label": labels, **named}), sealed.PROBABILITIES)
        if digest:
            run.set_tags({tracking.IMAGES["test"]: images_digest(images, labels, room.dataset.classes)})
    room.ids[name] = run.id
    models.set_alias(store, models.add_version(store, "fer-demo", run.id, {}, {}, ""), models.CHAMPION)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    folder = tmp_path_factory.mktemp("compare")
    small = ["data=demo", "data.demo_size=1000", "data.classes=null", "backbone=pocket", "head=linear"]
    config = compose([*small, f"paths.mlruns={folder}/mlruns", f"paths.cache={folder}/cache"])
    room = Room(config, {}, {}, load_dataset(config.data))
    log_fit(room, "good", config, wrong=5)
    log_fit(room, "bad", with_values(config, {"head.l2": 0.5}), wrong=50)
    log_fit(room, "weak", with_values(config, {"head.l2": 0.4}), wrong=48)
    log_fit(room, "old", with_values(config, {"head.l2": 0.3}), wrong=10)
    store = tracking.connect(config)
    client_of(store).delete_tag(room.ids["old"], tracking.IMAGES["val"])
    log_promotion(room, "earlier", wrong=20, digest=False)
    log_promotion(room, "promotion", wrong=3)
    return room


def test_a_run_keeps_what_it_said_of_each_validation_image(room: Room):
    store, dataset = tracking.connect(room.config), room.dataset
    labels = dataset.labels[dataset.val]
    (row,) = entries(room.config, [room.ids["good"]])
    kept = row.predictions()
    assert kept is not None
    np.testing.assert_array_equal(kept[0], labels)
    np.testing.assert_array_equal(kept[1], room.said["good"])
    run = tracking.find_run(store, room.ids["good"])
    assert run is not None
    assert run.tags["fer.val_images"] == images_digest(dataset.images[dataset.val], labels, dataset.classes)
    assert run.metrics["model/trainable_parameters"] == 25
    content = tracking.artifact_bytes(store, run.run_id, PREDICTIONS)
    assert content is not None and len(content) < 4 * kept[1].size


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "another"])
def test_predictions_that_are_damaged_are_none(room: Room, damage: str, tmp_path: Path):
    store = tracking.connect(room.config)
    (row,) = entries(room.config, [room.ids["weak"]])
    content = tracking.artifact_bytes(store, room.ids["weak"], PREDICTIONS)
    assert content is not None and row.predictions() is not None
    changed = bytearray(content)
    changed[60:140] = bytes(byte ^ 255 for byte in changed[60:140])  # zlib.error
    np.save(tmp_path / "other.npy", np.zeros(3))
    damaged = {"cut": content[:-9], "empty": b"", "changed": changed, "another": (tmp_path / "other.npy").read_bytes()}
    tracking.Run(store, room.ids["weak"]).log_bytes(bytes(damaged[damage]), PREDICTIONS)
    assert row.predictions() is None
    tracking.Run(store, room.ids["weak"]).log_bytes(content, PREDICTIONS)


def test_other_images_labels_or_classes_have_another_digest():
    images, labels = np.zeros((2, 3, 3), "uint8"), np.array([0, 1])
    same = images_digest(images, labels, ("a", "b"))
    assert same == images_digest(images.copy(), labels.astype("int32"), ["a", "b"])
    others = [
        (images + 1, labels, "ab"),
        (images, labels[::-1], "ab"),
        (images, labels, "ba"),
        (images[:1], labels, "ab"),
    ]
    assert same not in {images_digest(*other) for other in others}


def test_a_row_has_what_its_run_has(room: Room):
    good, champion = entries(room.config, [room.ids["good"], "fer-demo"])
    assert (good.name, good.classes, good.split, good.chosen) == ("pocket linear", 7, "validation, official", "epoch")
    assert good.accuracy == pytest.approx(1 - 5 / len(room.dataset.val)) and good.low and good.high
    assert good.low < good.accuracy < good.high
    assert (good.training_s, good.epochs, good.trainable, good.parameters) == (8985.0, 3, 25, None)
    assert good.hardware and good.source == room.ids["good"]
    with tracking.start_run(tracking.connect(room.config), "sweep", "above", system_metrics=False) as above:
        above.log_environment()
        log_fit(room, "trial", with_values(room.config, {"head.l2": 0.7}), wrong=10, parent=above.id)
    assert entries(room.config, [room.ids["trial"]])[0].hardware == good.hardware, "on the run above"
    # What a promotion does not have is that of the refit that it took.
    assert (champion.name, champion.split, champion.accuracy) == ("fer-demo/2", "test, official", 0.9)
    assert champion.chosen == "nothing; opened 2 times"
    assert (champion.training_s, champion.epochs, champion.mb, champion.ms) == (2 * 8985.0, 3, 4.2, 12.0)
    assert entries(room.config, ["fer-demo/1"])[0].training_s == 8985.0, "one head alone answers"
    assert champion.parameters == 1000 and champion.classes is None


def test_rows_on_the_same_images_are_tested_in_pairs_and_others_are_not(room: Room):
    names = ["good", "bad", "weak", "old", "promotion"]
    found, without = pairs(entries(room.config, [*(room.ids[name] for name in names), "paper_system"]))
    assert [(pair.first, pair.second) for pair in found] == [(1, 2), (1, 3), (2, 3)] and without == [4]
    labels = room.dataset.labels[room.dataset.val]
    for pair, (first, second) in zip(found, [("good", "bad"), ("good", "weak"), ("bad", "weak")], strict=True):
        wanted = mcnemar(labels, room.said[first], room.said[second])
        assert pair.paired is not None and pair.paired.mcnemar == wanted
        assert pair.paired_p is not None and pair.paired_p >= wanted.p_value  # there are three of them
    assert [pair.verdict for pair in found] == ["1 is better", "1 is better", "no difference beyond noise"]
    assert found[0].paired_p == pytest.approx(3 * mcnemar(labels, room.said["good"], room.said["bad"]).p_value)


def test_promotions_of_one_dataset_share_their_test_images_with_a_digest_of_them_or_without(room: Room):
    (pair,), without = pairs(entries(room.config, ["fer-demo/1", "fer-demo/2"]))
    assert pair.paired is not None and not without and pair.verdict == "2 is better"
    assert (pair.paired.mcnemar.only_first, pair.paired.mcnemar.only_second) == (0, 17)


def test_a_paired_difference_within_the_spread_over_seeds_is_none(room: Room):
    for name, base, l2, wrongs in (("g", "good", None, (5, 70)), ("b", "bad", 0.5, (20, 40))):
        for seed, wrong in enumerate(wrongs, start=1):
            values = {"training.seed": seed} | ({"head.l2": l2} if l2 else {})
            log_fit(room, f"{name}{seed}", with_values(room.config, values), wrong)
        (row,) = entries(room.config, [room.ids[base]])
        runs = [tracking.find_run(tracking.connect(room.config), room.ids[n]) for n in (base, f"{name}1", f"{name}2")]
        assert row.seeds == spread([run.metrics["final/val_accuracy"] for run in runs if run])
    (pair,), _ = pairs(entries(room.config, [room.ids["good"], room.ids["bad"]]))
    assert pair.paired_p is not None and pair.paired_p < 0.001
    assert pair.seeds_p is not None and pair.seeds_p > 0.05
    assert pair.verdict == "no difference beyond noise"


def told(room: Room, names: list[str], form: str = "table") -> str:
    said: list[str] = []
    compare(room.config, names, form, said.append)
    return said[0]


def test_every_form_has_every_row_and_is_logged_on_the_first_runs(room: Room, tmp_path: Path):
    names = ["paper_system", room.ids["weak"], room.ids["old"], room.ids["good"]]
    table, markdown, html = (told(room, names, form) for form in ("table", "markdown", "html"))
    assert "2 h 29 min 45 s" in table and "No paired test of row 3: no predictions" in table
    assert markdown.splitlines()[2].startswith("| 1   | the paper's system |") and "4 is better" in markdown
    page = Read(html)
    head, *rows = page.tables["rows 0"]
    assert head[:4] == ["row", "what", "classes", "accuracy"] and [row[-1] for row in rows][1:] == names[1:]
    assert page.tables["pairs 1"][1][0] == "2 - 4"
    told_csv = told(room, names, "csv")
    lines = list(csv.DictReader(io.StringIO(told_csv)))
    assert tuple(lines[0]) == COLUMNS and [line["source"] for line in lines[1:]] == names[1:]
    assert float(lines[3]["accuracy"]) == 1 - 5 / len(room.dataset.val) and lines[0]["trainable"] == ""
    client = client_of(tracking.connect(room.config))
    for ending, text in (("csv", told_csv), ("md", markdown)):
        logged = Path(client.download_artifacts(room.ids["weak"], f"comparison.{ending}", str(tmp_path)))
        assert logged.read_text() == text
    assert (
        "Comparison" in Path(client.download_artifacts(room.ids["weak"], "comparison.html", str(tmp_path))).read_text()
    )


def test_a_name_that_starts_a_formula_is_text(room: Room):
    with tracking.start_run(tracking.connect(room.config), "train", "=1+1", system_metrics=False) as run:
        run.log_metrics({"final/val_accuracy": 0.5})
    assert told(room, [run.id], "csv").splitlines()[1].startswith("'=1+1,")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "name what to compare"),
        (["paper_systm"], "paper_systm: no run, registered model .* did you mean paper_system"),
        (["0" * 32], "0{32}: no run"),
        (["fer-demo/7"], "fer-demo/7: no such registered model .* there are fer-demo/2, fer-demo/1"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(room: Room, names: list[str], message: str):
    with pytest.raises(UserError, match=message):
        entries(room.config, names)


def test_a_name_that_a_sweep_has_too_is_refused(tmp_path: Path):
    (tmp_path / "sweeps" / "vggnet_2021-0123abcd").mkdir(parents=True)
    with pytest.raises(UserError, match="vggnet_2021: a published system and a sweep of that name; say the sweep's id"):
        entries(config_in(tmp_path), ["vggnet_2021"])


def test_published_systems_need_no_store_and_are_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["compare", "published", "--csv", f"paths.mlruns={tmp_path}/none"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["name"] for line in lines] == [published(name).name for name in published_names()]
    by_name = {line["name"]: line for line in lines}
    assert by_name["FERehab ResNet-50 (VGGFace2)"]["trainable"] == "25613383"
    for line in lines:
        assert line["split"] and line["chosen"] and line["source"]
        assert float(line["low"]) < float(line["accuracy"]) < float(line["high"])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acuracy: 1", "acuracy is no key of it"),
        ("accuracy: high", "accuracy=high: must be a float"),
        ("accuracy: 71.25", "accuracy=71.25: must be a share"),
        ("images: few", "images=few: must be a int"),
    ],
)
def test_a_published_system_that_cannot_be_read_is_named(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = {"name": "x", "classes": 2, "accuracy": 0.5, "split": "s", "chosen": "c", "source": "u"}
    key = text.partition(":")[0]
    (tmp_path / "published").mkdir()
    lines = [f"{k}: {json.dumps(v)}" for k, v in whole.items() if k != key]
    (tmp_path / "published" / "mine.yaml").write_text("\n".join([*lines, text]))
    monkeypatch.setattr(folders, "config_dir", lambda: tmp_path)
    folders.yaml_of.cache_clear()
    with pytest.raises(UserError, match=f"conf/published/mine.yaml: {message}"):
        published("mine")
    folders.yaml_of.cache_clear()


def test_published_systems_are_no_group_of_a_config():
    assert (config_dir() / GROUP).is_dir()
    with pytest.raises(UserError, match=r"published: no such config path$"):
        compose([f"{GROUP}=paper"])
