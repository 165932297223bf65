"""A dataset as text for the terminal: counts, what cleaning removed and why, fingerprints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fer_experiments.data.dataset import Dataset
from fer_experiments.terminal import counted, table

REASONS = {
    "constant": "constant (one grey level)",
    "conflicting": "conflicting labels on identical pixels",
    "duplicates": "redundant copies",
    "near_twins": "near twins of an image to evaluate on",
}


def describe(dataset: Dataset) -> str:
    """Return tables of the images in each split and class, and of what cleaning removed, with the fingerprints."""
    report, found = dataset.cleaning, dataset.cleaning["duplicates"]
    height, width = dataset.images.shape[1:]
    steps, parted = ", ".join(report["steps"]) or "none", len(report["found_by_usage"]) > 1
    lines = [
        f"{dataset.task}: {' / '.join(dataset.classes)}, {width}x{height} pixels, from {dataset.source}",
        "",
        *_split_table(dataset),
        "",
        f"Cleaning ({steps}) of {report['found']:,} images found:",
        *_cleaning_table(dataset),
        "",
        *_identical(found, parted),
        f"  {report['constant_images']:,} constant images",
        *(_near_twins(report["near_twins"], parted) if "near_twins" in report else ()),
        *remarks(dataset),
        "",
        f"fingerprint         {dataset.fingerprint}",
        f"images fingerprint  {dataset.images_fingerprint}",
    ]
    return "\n".join(lines)


def remarks(dataset: Dataset) -> list[str]:
    """Return a line for each thing that reading changed or left out, and for what a person may not expect."""
    converted = dataset.cleaning["converted"].items()
    return [
        *(f"Converted on reading: {what}: {count:,}" for what, count in converted),
        *(f"Note: {note}" for note in dataset.cleaning["notes"]),
    ]


def _split_table(dataset: Dataset) -> list[str]:
    rows: list[list[str | int]] = [["split", *dataset.classes, "total"]]
    rows += [[part, *counts.values(), sum(counts.values())] for part, counts in dataset.counts.items()]
    return _table(rows)


def _cleaning_table(dataset: Dataset) -> list[str]:
    report = dataset.cleaning
    usages = list(report["found_by_usage"])
    rows: list[list[str | int]] = [["", *usages, "total"]]
    for step, counts in report["removed"].items():
        rows.append([f"- {REASONS[step]}", *(counts.get(usage, 0) for usage in usages), sum(counts.values())])
    rows.append(["kept", *(report["kept_by_usage"].get(usage, 0) for usage in usages), report["kept"]])
    rows.append(["of these in the classes", *("" for _ in usages), report["in_classes"]])
    return _table(rows)


def _identical(found: dict[str, Any], parted: bool) -> list[str]:
    """parted: whether the source has parts that copies may be across."""
    copies = (
        f"{found['redundant_copies']:,} redundant copies in {counted(found['groups'], 'group')} of identical images"
    )
    if not parted:
        return [f"In the source: {copies}, {found['conflicting_groups']:,} with conflicting labels;"]
    return [
        f"In the source: {copies}, {counted(found['groups_across_splits'], 'group')} across official splits,",
        f"  {found['conflicting_groups']:,} with conflicting labels; twins in Training of "
        f"{found['private_test_with_twin_in_training']:,} PrivateTest and "
        f"{found['public_test_with_twin_in_training']:,} PublicTest images;",
    ]


def _near_twins(found: dict[str, Any], parted: bool) -> list[str]:
    """parted: whether the source has parts that twins may be across."""
    pairs = [[name, count] for name, count in found["pairs_between"].items()]
    across = (
        f"  twins in Training of {found['private_test_with_twin_in_training']:,} PrivateTest and "
        f"{found['public_test_with_twin_in_training']:,} PublicTest images, "
        f"in PrivateTest of {found['public_test_with_twin_in_private_test']:,} PublicTest images"
    )
    end = ";" if parted else ""
    return [
        "",
        f"Near twins (one photograph, not the same pixels; score from {found['threshold']}): {found['pairs']:,} pairs, "
        f"{found['mirrored_pairs']:,} of them mirrored,",
        f"  {found['images']:,} images in {counted(found['groups'], 'group')}, the largest of "
        f"{found['largest_group']:,}; {counted(found['conflicting_groups'], 'group')} with more than one label{end}",
        *([across] if parted else []),
        *(f"  {line}" for line in _table([["between", "pairs"], *pairs]) if pairs),
    ]


def _table(rows: Sequence[Sequence[str | int]]) -> list[str]:
    """Align the first column left, the others right."""
    return table([[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows], 1).splitlines()
