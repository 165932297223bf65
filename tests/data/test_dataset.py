from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from face_files import csv_text, random_faces, tree, write_tar, write_zip
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from fer_experiments.config import DataConfig
from fer_experiments.data import Dataset, images_digest, load_dataset, open_test_split
from fer_experiments.data.faces import EMOTIONS, Faces
from fer_experiments.errors import UserError

BINARY = {"negative": ["angry", "fear", "sad"], "positive": ["happy"]}


@pytest.fixture
def seven(faces_csv: Path) -> DataConfig:
    return DataConfig(name="test", task="seven", path=str(faces_csv))


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Dataset]:
    """Write faces as a CSV and load them."""
    path = tmp_path_factory.mktemp("load") / "fer2013.csv"

    def write_and_load(faces: Faces, **cfg: Any) -> Dataset:
        path.write_text(csv_text(faces))
        return load_dataset(DataConfig(name="test", task="test", path=str(path), **cfg))

    return write_and_load


def test_every_emotion_is_a_class_unless_grouped(seven: DataConfig) -> None:
    dataset = load_dataset(seven)
    assert dataset.classes == EMOTIONS
    assert np.array_equal(np.array(EMOTIONS)[dataset.labels], dataset.emotions)
    assert dataset.counts == {part: dict.fromkeys(EMOTIONS, 3) for part in ("train", "val", "test")}
    assert set(dataset.usage[dataset.train]) == {"Training"}
    assert set(dataset.usage[dataset.val]) == {"PublicTest"}
    assert (dataset.images.dtype, dataset.labels.dtype) == (np.uint8, np.int64)


def test_a_config_s_classes_are_matched_by_the_rule_of_the_names(seven: DataConfig) -> None:
    spelled = {"negative": ["Anger", "FEAR", "sadness"], "positive": ["Happiness"]}
    found = load_dataset(replace(seven, classes=spelled))
    assert found.fingerprint == load_dataset(replace(seven, classes=BINARY)).fingerprint
    with pytest.raises(UserError, match="emotion angry is in two classes"):
        load_dataset(replace(seven, classes={"a": ["anger"], "b": ["angry"]}))


def test_data_emotions_changes_the_labels_and_nothing_else(seven: DataConfig) -> None:
    names = {str(code): emotion for code, emotion in enumerate(EMOTIONS)}
    other = replace(seven, source="other")
    assert load_dataset(other).classes == tuple("0123456")
    named = load_dataset(replace(other, emotions=names))
    assert named.classes == EMOTIONS
    assert named.fingerprint == load_dataset(seven).fingerprint
    assert load_dataset(replace(other, emotions=names | {"0": "fear", "2": "angry"})).fingerprint != named.fingerprint


def test_what_a_person_may_not_expect_is_noted(seven: DataConfig) -> None:
    assert load_dataset(seven).cleaning["notes"] == []
    other = replace(seven, source="other", split="stratified")
    numbers, mixed = load_dataset(other).cleaning["notes"]
    assert "the classes are numbers (0, 1, 2, 3, 4, ...)" in numbers and "mixed by data.split=stratified" in mixed
    assert load_dataset(replace(other, classes={"a": ["0"], "b": ["1"]})).cleaning["notes"] == [mixed]


def test_a_draw_that_misses_its_shares_is_noted(load: Callable[..., Dataset]) -> None:
    faces = random_faces(30, usages=("Training",))
    faces.images[np.arange(210) % 30 < 22] = faces.images[0]
    note = load(faces, split="stratified", clean="none").cleaning["notes"][-1]
    assert note.startswith("the split is 73/13/13 % instead of 60/20/20 %") and "up to 154 here" in note
    assert load(faces, split="stratified", clean="none", limit=7).cleaning["notes"] == []
    assert load(random_faces(20, usages=("Training",)), split="stratified").cleaning["notes"] == []


def test_emotions_are_grouped_to_classes_and_the_others_left_out(seven: DataConfig) -> None:
    dataset = load_dataset(replace(seven, classes=BINARY))
    assert dataset.classes == ("negative", "positive")
    assert set(dataset.emotions) == {"angry", "fear", "sad", "happy"}
    assert np.array_equal(dataset.labels == 1, dataset.emotions == "happy")
    assert dataset.counts["val"] == {"negative": 9, "positive": 3}
    assert dataset.cleaning["in_classes"] == 36


@pytest.mark.parametrize("split", ["official", "stratified", "kfold"])
def test_the_test_split_is_sealed(seven: DataConfig, split: str) -> None:
    cfg = replace(seven, split=split)
    dataset, test = load_dataset(cfg), open_test_split(cfg)
    assert not set(test.ids) & set(dataset.ids)
    held = {value.tobytes() for value in dataset.images}
    assert not any(image.tobytes() in held for image in test.images)
    for field in fields(dataset):
        value = getattr(dataset, field.name)
        if isinstance(value, np.ndarray) and field.name not in ("train", "val"):
            assert len(value) == len(dataset.train) + len(dataset.val)
    assert np.array_equal(np.union1d(dataset.train, dataset.val), np.arange(len(dataset.images)))
    assert test.fingerprint == dataset.fingerprint
    assert dict(zip(test.classes, np.bincount(test.labels).tolist(), strict=True)) == dataset.counts["test"]


def test_every_container_of_the_same_faces_gives_the_same_dataset(
    tmp_path: Path, faces: Faces, seven: DataConfig
) -> None:
    files = tree(faces)
    backwards = dict(reversed(list(files.items())))
    paths = [write_zip(tmp_path / "faces.zip", files), write_tar(tmp_path / "faces.tar.gz", backwards)]
    for split in ("official", "stratified"):
        cfg = replace(seven, split=split)
        one, *others = (load_dataset(replace(cfg, path=str(path))) for path in (seven.path, *paths))
        for other in others:
            assert other.fingerprint == one.fingerprint
            assert other.images_fingerprint == one.images_fingerprint
            for name in ("images", "labels", "train", "val"):
                assert np.array_equal(getattr(other, name), getattr(one, name))


@given(st.randoms(use_true_random=False), st.integers(0, 62), st.integers(0, 2303), st.integers(1, 255))
@settings(max_examples=10, deadline=None)
def test_the_order_of_files_leaves_the_fingerprint_and_any_changed_pixel_changes_it(
    load: Callable[..., Dataset], random: Any, row: int, pixel: int, change: int
) -> None:
    faces = random_faces()
    whole = load(faces)
    shuffled = list(range(len(faces)))
    random.shuffle(shuffled)
    assert load(faces.take(np.array(shuffled))).fingerprint == whole.fingerprint
    images = faces.images.copy()
    images.reshape(len(faces), -1)[row, pixel] ^= change
    changed = load(replace(faces, images=images))
    assert changed.fingerprint != whole.fingerprint
    in_test = faces.usage[row] == "PrivateTest"
    assert (changed.images_fingerprint == whole.images_fingerprint) == in_test


@given(st.integers(0, 62))
@settings(max_examples=10, deadline=None)
def test_any_changed_label_or_split_changes_the_fingerprint_but_not_the_pixels_of_the_same_images(
    load: Callable[..., Dataset], row: int
) -> None:
    faces = random_faces()
    whole = load(faces)
    emotion, usage = faces.emotion.copy(), faces.usage.copy()
    emotion[row] = EMOTIONS[EMOTIONS.index(emotion[row]) - 1]
    usage[row] = "PublicTest" if usage[row] == "Training" else "Training"
    relabelled = load(replace(faces, emotion=emotion))
    assert relabelled.fingerprint != whole.fingerprint
    assert relabelled.images_fingerprint == whole.images_fingerprint
    assert load(replace(faces, usage=usage)).fingerprint != whole.fingerprint


def test_settings_that_change_the_data_change_the_fingerprint(seven: DataConfig) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"clean": "none"},
        {"classes": BINARY},
        {"classes": {"bad": BINARY["negative"], "good": ["happy"]}},
        {"split": "stratified"},
        {"split": "stratified", "seed": 1},
        {"split": "kfold"},
        {"split": "kfold", "fold": 1},
        {"limit": 7},
    ]
    assert len({load_dataset(replace(seven, **change)).fingerprint for change in changes}) == len(changes)
    assert load_dataset(replace(seven, balance="class_weight")).fingerprint == load_dataset(seven).fingerprint


def test_the_test_split_has_a_digest_that_no_choice_of_training_images_changes(
    load: Callable[..., Dataset], tmp_path: Path
) -> None:
    """By it the openings of the test split are counted, and models compared."""
    faces = random_faces()
    (tmp_path / "whole.csv").write_text(csv_text(faces))
    cfg = DataConfig(name="test", task="test", path=str(tmp_path / "whole.csv"))
    whole, test = load_dataset(cfg), open_test_split(cfg)
    assert whole.test_digest == test.digest == images_digest(test.images, test.labels, test.classes)
    for change in ({"balance": "undersample"}, {"balance": "class_weight"}, {"clean": "none"}):
        assert load(faces, **change).test_digest == whole.test_digest
    folds = [load(faces, split="kfold", folds=3, fold=fold) for fold in (0, 1, "all")]
    assert {fold.test_digest for fold in folds} == {whole.test_digest} and len({f.fingerprint for f in folds}) == 3
    for usage, same in (("Training", True), ("PublicTest", True), ("PrivateTest", False)):
        row = int(np.flatnonzero(faces.usage == usage)[0])
        images, emotion = faces.images.copy(), faces.emotion.copy()
        images[row, 0, 0] ^= 1
        emotion[row] = EMOTIONS[EMOTIONS.index(emotion[row]) - 1]
        for changed in (load(replace(faces, images=images)), load(replace(faces, emotion=emotion))):
            assert (changed.test_digest == whole.test_digest) == same and changed.fingerprint != whole.fingerprint
    assert load(faces, classes=BINARY).test_digest != whole.test_digest


def test_folds_share_their_images_so_that_features_are_computed_once(seven: DataConfig) -> None:
    folds = [load_dataset(replace(seven, split="kfold", folds=3, fold=fold)) for fold in range(3)]
    assert len({fold.images_fingerprint for fold in folds}) == 1
    assert len({fold.fingerprint for fold in folds}) == 3


def test_class_weights_are_scikit_learn_s_balanced_ones(seven: DataConfig) -> None:
    dataset = load_dataset(replace(seven, classes=BINARY, balance="class_weight"))
    labels = dataset.labels[dataset.train]
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    assert dataset.class_weight == pytest.approx(dict(enumerate(expected.tolist())))
    assert load_dataset(seven).class_weight is None


def test_smoke_is_a_few_images_whatever_per_class_asks(seven: DataConfig) -> None:
    demo = DataConfig(name="demo", task="demo", source="demo", classes=BINARY, balance="undersample", per_class=2000)
    dataset = load_dataset(demo, smoke=True)
    assert dataset.source == "demo"
    assert all(2 <= sum(counts.values()) <= 32 for counts in dataset.counts.values())
    assert len(open_test_split(demo, smoke=True).images) == sum(dataset.counts["test"].values())
    assert len(load_dataset(replace(seven, limit=7), smoke=True).train) == 7


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"classes": {"a": ["hapy"], "b": ["sad"]}}, "unknown emotion 'hapy' in a; did you mean happy?"),
        ({"classes": {"a": ["contempt"], "b": ["sad"]}}, "unknown emotion 'contempt' in a"),
        ({"classes": {"a": ["happy", "sad"], "b": ["sad"]}}, "emotion sad is in two classes"),
        ({"classes": {"a": [], "b": ["sad"]}}, "class a has no emotion"),
        ({"classes": {"a": ["happy"]}}, r"1 class \(a\); at least two are needed"),
        ({"clean": "some"}, r"data\.clean"),
        ({"split": "random"}, r"data\.split"),
        ({"source": "image_folder", "path": None}, r"data\.path"),
    ],
)
def test_a_faulty_config_is_refused_in_one_line(seven: DataConfig, change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        load_dataset(replace(seven, **change))
    assert "\n" not in str(caught.value)


def test_a_class_without_images_in_a_split_is_refused(load: Callable[..., Dataset], faces: Faces) -> None:
    rows = np.flatnonzero(~((faces.emotion == "happy") & (faces.usage == "PublicTest")))
    with pytest.raises(UserError, match="class happy has no image in the val split"):
        load(faces.take(rows))


def test_a_class_that_cleaning_empties_is_refused(load: Callable[..., Dataset], faces: Faces) -> None:
    images = np.where((faces.emotion == "happy")[:, None, None], np.uint8(7), faces.images)
    with pytest.raises(UserError, match="class happy has no image after cleaning"):
        load(replace(faces, images=images))


def test_fer2013_that_is_not_at_hand_is_refused_with_the_three_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seven: DataConfig
) -> None:
    monkeypatch.delenv("FER2013", raising=False)
    monkeypatch.setattr("fer_experiments.data.readers.find_fer2013", lambda: None)  # data/ may hold the real one
    with pytest.raises(UserError, match=r"`make data`.*\$FER2013.*data\.path"):
        load_dataset(replace(seven, path=None))


def test_fer2013_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, seven: DataConfig) -> None:
    monkeypatch.setenv("FER2013", str(seven.path))
    assert load_dataset(replace(seven, path=None)).fingerprint == load_dataset(seven).fingerprint
