from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_experiments.config import DataConfig, check_data
from fer_experiments.data.faces import Faces
from fer_experiments.data.splits import OFFICIAL, PARTS, Rows, allocate, apportion, share_notes, split_notes, split_rows
from fer_experiments.errors import UserError

CFG = DataConfig(name="test", task="test", split="stratified")


def labelled(*counts: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


def split(labels: np.ndarray, groups: np.ndarray | None = None, usage: np.ndarray | None = None, **cfg: Any) -> Rows:
    n = len(labels)
    faces = Faces(np.zeros((n, 1, 1), np.uint8), labels.astype(str), np.full(n, "") if usage is None else usage, labels)
    classes = tuple(f"c{label}" for label in range(labels.max() + 1))
    return split_rows(faces, labels, np.arange(n) if groups is None else groups, classes, replace(CFG, **cfg))


def per_class(rows: Rows, labels: np.ndarray) -> dict[str, list[int]]:
    return {part: np.bincount(labels[rows[part]], minlength=labels.max() + 1).tolist() for part in PARTS}


@st.composite
def twins(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of 2 to 4 classes, and groups of identical images, some across classes."""
    n = draw(st.integers(30, 150))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return rng.integers(0, draw(st.integers(2, 4)), n), rng.integers(0, draw(st.integers(n // 3, 3 * n)), n)


@given(twins(), st.sampled_from(["stratified", "kfold"]), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_the_parts_are_a_partition_and_twins_stay_together(
    data: tuple[np.ndarray, np.ndarray], kind: str, seed: int
) -> None:
    labels, groups = data
    rows = split(labels, groups, split=kind, seed=seed)
    assert sorted(np.concatenate([rows[part] for part in PARTS])) == list(range(len(labels)))
    for part in PARTS:
        assert (np.diff(rows[part]) > 0).all()
        others = np.setdiff1d(np.arange(len(labels)), rows[part])
        assert not set(groups[rows[part]]) & set(groups[others])


@given(st.lists(st.integers(3, 200), min_size=2, max_size=5), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_stratified_gives_every_class_its_shares(counts: list[int], seed: int) -> None:
    labels = labelled(*counts)
    found = per_class(split(labels, seed=seed), labels)
    for label, count in enumerate(counts):
        for part, share in zip(PARTS, CFG.fractions, strict=True):
            assert abs(found[part][label] - share * count) <= 1


def test_the_paper_s_draw_is_exact_even_with_twins() -> None:
    labels = labelled(12_000, 8_900)
    groups = np.arange(len(labels))
    groups[1:3000:2] = groups[0:3000:2]  # 1,500 pairs, some across the classes
    rows = split(labels, groups, balance="undersample", per_class=8500)
    assert per_class(rows, labels) == {"train": [5100, 5100], "val": [1700, 1700], "test": [1700, 1700]}


def test_a_split_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    labels = labelled(100, 50)
    first, again, other = split(labels), split(labels), split(labels, seed=1)
    assert all(np.array_equal(first[part], again[part]) for part in PARTS)
    assert not np.array_equal(first["val"], other["val"])


def test_a_split_is_the_same_on_every_machine() -> None:
    assert split(labelled(8, 12))["val"].tolist() == [0, 2, 4, 9, 16]


def test_official_follows_usage() -> None:
    usage = np.array(["PublicTest", "Training", "PrivateTest", "Training"])
    rows = split(np.array([0, 1, 0, 0]), usage=usage, split="official")
    assert {part: rows[part].tolist() for part in PARTS} == {"train": [1, 3], "val": [0], "test": [2]}


def test_official_without_usage_is_refused() -> None:
    with pytest.raises(UserError, match="no Training and no PublicTest and no PrivateTest; use stratified or kfold"):
        split(labelled(10, 10), split="official")


@pytest.mark.parametrize("with_usage", [True, False])
def test_every_image_but_the_test_s_is_in_exactly_one_validation_fold(with_usage: bool) -> None:
    labels = labelled(103, 50)
    usage = np.array((["PrivateTest"] + ["Training"] * 4) * 31)[: len(labels)]
    folds = [split(labels, usage=usage if with_usage else None, split="kfold", folds=4, fold=k) for k in range(4)]
    pool = np.setdiff1d(np.arange(len(labels)), folds[0]["test"])
    assert np.array_equal(np.sort(np.concatenate([fold["val"] for fold in folds])), pool)
    assert all(np.array_equal(fold["test"], folds[0]["test"]) for fold in folds)
    assert all(np.array_equal(np.union1d(fold["train"], fold["val"]), pool) for fold in folds)
    if with_usage:
        assert np.array_equal(folds[0]["test"], np.flatnonzero(usage == "PrivateTest"))
    else:
        assert np.bincount(labels[folds[0]["test"]]).tolist() == [21, 10]


@pytest.mark.parametrize("kind", ["official", "kfold"])
def test_undersampling_touches_only_training_where_the_split_is_given(kind: str) -> None:
    labels = labelled(120, 60)
    usage = np.array((["PrivateTest", "PublicTest"] + ["Training"] * 4) * 30)
    raw, balanced = (split(labels, usage=usage, split=kind, balance=balance) for balance in ("none", "undersample"))
    assert len(set(per_class(balanced, labels)["train"])) == 1
    assert set(balanced["train"]) <= set(raw["train"])
    for limit in (None, 8):  # what a limit keeps is drawn after the balance
        kept = [split(labels, usage=usage, split=kind, balance=b, limit=limit) for b in ("none", "undersample")]
        assert all(np.array_equal(kept[0][part], kept[1][part]) for part in ("val", "test"))


def test_undersampling_draws_per_class_or_as_many_as_the_smallest_class_has() -> None:
    labels = labelled(100, 50)
    assert sum(map(np.array, per_class(split(labels, balance="undersample"), labels).values())).tolist() == [50, 50]
    found = per_class(split(labels, balance="undersample", per_class=20), labels)
    assert found == {"train": [12, 12], "val": [4, 4], "test": [4, 4]}


def test_per_class_over_what_there_is_names_class_and_count() -> None:
    with pytest.raises(UserError, match=r"data\.per_class: 51 is over the 50 images of class c1; give at most 50"):
        split(labelled(100, 50), balance="undersample", per_class=51)


@given(st.lists(st.integers(5, 300), min_size=2, max_size=5), st.integers(5, 100))
@settings(max_examples=60, deadline=None)
def test_limit_keeps_a_stratified_subset_of_each_part_with_every_class(counts: list[int], limit: int) -> None:
    labels = labelled(*counts)
    whole, some = split(labels), split(labels, limit=limit)
    for part in PARTS:
        assert set(some[part]) <= set(whole[part])
        assert len(some[part]) == min(limit, len(whole[part]))
        assert per_class(some, labels)[part] == apportion(np.bincount(labels[whole[part]]), len(some[part])).tolist()
        assert min(per_class(some, labels)[part]) >= 1


def test_a_limit_under_the_number_of_classes_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.limit: 2 is under the 3 classes; give at least 3"):
        split(labelled(10, 10, 10), limit=2)


def test_apportion_rounds_to_the_largest_remainders_and_leaves_none_empty() -> None:
    assert apportion(np.array([1.8, 0.6, 0.6]), 3).tolist() == [1, 1, 1]
    assert apportion(np.array([5.1, 1.7, 1.7]), 9).tolist() == [5, 2, 2]
    assert apportion(np.array([1000, 1]), 10).tolist() == [9, 1]
    assert apportion(np.array([0, 4]), 2).tolist() == [0, 2]


def test_nothing_to_allocate_is_no_error() -> None:
    empty = np.zeros(0, np.int64)
    assert allocate(empty, empty, [0.5, 0.5], np.random.default_rng(0)).tolist() == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"split": "random"}, r"data\.split=random: choose one of official, stratified, kfold"),
        ({"balance": "over"}, r"data\.balance=over: choose one of none, undersample, class_weight"),
        ({"fractions": [0.5, 0.5]}, r"data\.fractions"),
        ({"fractions": [0.6, 0.2, 0.3]}, r"data\.fractions"),
        ({"fractions": [0.8, 0.2, 0.0]}, r"data\.fractions"),
        ({"folds": 1}, r"data\.folds=1: must be at least 2"),
        ({"folds": 5, "fold": 5}, r"data\.fold=5: must be in 0\.\.4"),
        ({"fold": -1}, r"data\.fold"),
        ({"seed": -1}, r"data\.seed"),
        ({"limit": 0}, r"data\.limit"),
        ({"balance": "undersample", "per_class": 0}, r"data\.per_class"),
        (
            {"source": "demo", "path": "faces.zip"},
            r"data\.path=faces\.zip: data=demo draws its faces; leave out data\.path",
        ),
        ({"source": "demo", "emotions": {"1": "sad"}}, r"data\.emotions=.*: data=demo draws its faces; leave out"),
        ({"per_class": 10}, r"data\.per_class: needs data\.balance=undersample, not none"),
    ],
)
def test_a_setting_that_no_data_can_satisfy_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        check_data(replace(CFG, **change))


# A source's own parts

OWN = np.array(["Training"] * 300 + ["PrivateTest"] * 60)


def test_official_makes_a_validation_part_of_training_where_the_source_has_none() -> None:
    labels = labelled(240, 120)
    groups = np.arange(360)
    groups[:100] = groups[:100] // 2
    rows = split(labels, groups, OWN, split="official", source="image_folder", fractions=[0.6, 0.2, 0.2])
    assert rows["test"].tolist() == list(range(300, 360))
    assert sorted([*rows["train"], *rows["val"]]) == list(range(300))
    assert not set(groups[rows["train"]]) & set(groups[rows["val"]])
    own = np.bincount(labels[:300])
    assert np.abs(np.bincount(labels[rows["val"]]) - own / 4).max() <= 1
    again = split(labels, groups, OWN, split="official", source="image_folder", fractions=[0.6, 0.2, 0.2])
    assert all(np.array_equal(again[part], rows[part]) for part in PARTS)
    other = split(labels, groups, OWN, split="official", source="image_folder", seed=1)
    assert not np.array_equal(other["val"], rows["val"])


def test_official_of_fer2013_is_its_own_or_none() -> None:
    with pytest.raises(UserError, match=r"official: the source has no PublicTest; use stratified or kfold$"):
        split(labelled(240, 120), usage=OWN, split="official", source="fer2013")
    for remedy in ("stratified", "kfold"):
        rows = split(labelled(240, 120), usage=OWN, split=remedy, source="fer2013")
        assert min(len(rows[part]) for part in PARTS) > 30
    whole = np.where(np.arange(360) < 30, "PublicTest", OWN)
    for source in ("fer2013", "image_folder"):
        rows = split(labelled(240, 120), usage=whole, split="official", source=source)
        assert all(set(whole[rows[part]]) == {usage} for part, usage in OFFICIAL.items())


def test_official_makes_a_test_part_of_training_where_a_tree_has_train_and_validation_alone() -> None:
    usage = np.where(OWN == "PrivateTest", "PublicTest", OWN)
    rows = split(labelled(240, 120), usage=usage, split="official", source="image_folder")
    assert rows["val"].tolist() == list(range(300, 360))
    assert sorted([*rows["train"], *rows["test"]]) == list(range(300)) and len(rows["test"]) == 75


@pytest.mark.parametrize("usages", [("Training",), ("PublicTest", "PrivateTest"), ("",)])
def test_official_of_a_source_that_lacks_more_is_refused(usages: tuple[str, ...]) -> None:
    usage = np.resize(usages, 360)
    with pytest.raises(UserError, match=r"official: the source has no .*; use stratified or kfold"):
        split(labelled(240, 120), usage=usage, split="official", source="image_folder")


def test_folds_of_a_source_that_is_all_test_are_drawn_from_all() -> None:
    rows = split(labelled(240, 120), usage=np.full(360, "PrivateTest"), split="kfold")
    assert min(len(rows[part]) for part in PARTS) > 50


def test_what_becomes_of_a_source_s_own_parts_is_said() -> None:
    faces = Faces(np.zeros((360, 1, 1), np.uint8), OWN, OWN, OWN)
    cfg = replace(CFG, source="image_folder")
    assert split_notes(faces, cfg) == [
        "the source's own Training, PrivateTest are mixed by data.split=stratified; official keeps them apart"
    ]
    carved = split_notes(faces, replace(cfg, split="official", fractions=[0.5, 0.25, 0.25]))
    assert carved == ["the source has no val part: 33% of its train part, drawn by data.seed, takes its place"]
    assert split_notes(faces, replace(cfg, split="kfold")) == []
    assert split_notes(replace(faces, usage=np.full(360, "")), cfg) == []


def test_shares_that_a_draw_misses_for_a_group_that_no_draw_parts_are_said() -> None:
    labels, groups = labelled(50, 50), np.arange(100)
    groups[:72] = 0
    (note,) = share_notes(split(labels, groups), groups, CFG)
    assert note.startswith("the split is 72/14/14 % instead of 60/20/20 %: images of one photograph stay in one part")
    assert "up to 72 here" in note
    for other in ({"limit": 5}, {"split": "kfold"}, {"balance": "undersample"}):
        assert share_notes(split(labels, groups, **other), groups, replace(CFG, **other)) == []


@pytest.mark.parametrize("fractions", [[0.6, 0.2, 0.2], [0.8, 0.1, 0.1]])
def test_shares_that_are_met_are_not_worth_a_note(fractions: list[float]) -> None:
    labels = labelled(103, 51)
    for groups in (np.arange(154), np.arange(154) // 2):
        cfg = replace(CFG, fractions=fractions)
        assert share_notes(split(labels, groups, fractions=fractions), groups, cfg) == []


def test_few_images_whose_shares_are_far_from_what_was_asked_are_named_as_the_reason() -> None:
    labels, groups = labelled(4, 4), np.arange(8)
    (note,) = share_notes(split(labels, groups), groups, CFG)
    assert note.startswith("the split is 50/25/25 % instead of 60/20/20 %: there are so few images")
