"""Stored features that are damaged, copied, touched or of an older version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_cache import IMAGES, extract, many, shards

from fer_experiments.config import BackboneConfig


@pytest.mark.parametrize("damage", ["truncated", "changed", "gone"])
def test_a_damaged_shard_is_computed_again_and_no_other(tmp_path: Path, backbone: BackboneConfig, damage: str) -> None:
    before = extract(tmp_path, backbone, IMAGES).take(np.arange(50))
    victim, *others = shards(tmp_path)
    content = bytearray(victim.read_bytes())
    times = {path: path.stat().st_mtime_ns for path in others if path.name[:7] != victim.name[:7]}
    if damage == "gone":
        victim.unlink()
    else:
        content[-1] ^= 1
        victim.write_bytes(content[:-100] if damage == "truncated" else content)
    said: list[str] = []
    after = extract(tmp_path, backbone, IMAGES, said)
    assert said[0] == "features: 3 of 4 shards are there already"
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for one, other in zip(before, after.take(np.arange(50)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_whatever_bit_of_a_record_or_header_is_flipped_features_are_those_that_were_made(
    tmp_path: Path, backbone: BackboneConfig
) -> None:
    """What NumPy makes of a damaged header is any error of Python's parser, and JSON may still be JSON."""
    made = extract(tmp_path, backbone, IMAGES)
    before, (victim, *_) = made.take(np.arange(50)), shards(tmp_path)
    folder, random = victim.parent, np.random.default_rng(0)
    manifest, record = folder / "manifest.json", next(folder.glob("0*.json"))
    for file, places in ((manifest, len(manifest.read_bytes())), (record, len(record.read_bytes())), (victim, 100)):
        content = file.read_bytes()
        for place in (int(each) for each in random.choice(places, 12, replace=False)):
            changed = bytearray(content)
            changed[place] ^= 1 << int(random.integers(7))
            file.write_bytes(changed)
            after = extract(tmp_path, backbone, IMAGES)
            assert (after.fingerprint, after.dtype, after.shapes) == (made.fingerprint, made.dtype, made.shapes)
            for one, other in zip(before, after.take(np.arange(50)), strict=True):
                np.testing.assert_array_equal(one, other)
    for text in ("null", "[]", "{}", '"a"'):
        manifest.write_text(text)
        record.write_text(text)
        assert extract(tmp_path, backbone, IMAGES).fingerprint == made.fingerprint


def test_a_manifest_of_an_older_version_has_no_digest(tmp_path: Path, backbone: BackboneConfig) -> None:
    extract(tmp_path, backbone, IMAGES)
    manifest = shards(tmp_path)[0].parent / "manifest.json"
    known = json.loads(manifest.read_text())
    del known["digest"]
    manifest.write_text(json.dumps(known))
    said: list[str] = []
    extract(tmp_path, backbone, IMAGES, said)
    assert len(said) == 1 and "no image forwarded" in said[0]


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("source", ["another view", "other images"])
def test_features_that_were_copied_from_another_folder_are_not_taken(
    tmp_path: Path, backbone: BackboneConfig, source: str, unfinished: bool
) -> None:
    """As somebody does who makes room by links, or mends a cache by hand; sizes and times are the same then."""
    made = extract(tmp_path, backbone, IMAGES, views=["original", "flip"])
    copied = made.path / "flip" if source == "another view" else extract(tmp_path, backbone, many(48)).path / "original"
    before, where = made.take(np.arange(50)), made.path / "original"
    shutil.rmtree(where)
    shutil.copytree(copied, where)
    if unfinished:
        (where / "manifest.json").unlink()
    for one, other in zip(before, extract(tmp_path, backbone, IMAGES).take(np.arange(50)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_touched_shard_is_checked_and_kept(tmp_path: Path, backbone: BackboneConfig) -> None:
    extract(tmp_path, backbone, IMAGES)
    shards(tmp_path)[0].touch()
    said: list[str] = []
    extract(tmp_path, backbone, IMAGES, said)
    assert len(said) == 1 and "no image forwarded" in said[0]
