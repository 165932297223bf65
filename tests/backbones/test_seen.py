"""Images that a backbone has learned from evaluate nothing, and near twins of them are counted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from application_configs import MOBILE

from fer_experiments.backbones.networks import check_not_seen, check_part_not_seen, seen_near_twins
from fer_experiments.errors import UserError


def test_a_backbone_is_not_evaluated_on_what_it_was_trained_on() -> None:
    cfg = replace(MOBILE, name="pocket", seen=["fer2013/Training"])
    usage = np.array(["Training", "PublicTest", "Training", "PublicTest"])
    images = np.random.default_rng(0).integers(0, 256, (4, 48, 48), np.uint8)
    dataset: Any = SimpleNamespace(source="fer2013", images=images, usage=usage, val=np.array([0, 1, 2]))
    with pytest.raises(UserError, match=r"fer2013/Training, and 2 of the 3 validation images .* data.split=official"):
        check_not_seen(cfg, dataset)
    check_part_not_seen(cfg, "fer2013", images[[1, 3]], usage[[1, 3]], "test")
    check_part_not_seen(cfg, "demo", images, usage, "test")
    with pytest.raises(UserError, match="2 of the 4 test images"):
        check_part_not_seen(cfg, "fer2013", images, usage, "test")
    for part, of in [("mine/", "Training"), ("mine/", ""), ("mine/Training", "")]:
        with pytest.raises(UserError, match="4 of the 4 test images"):
            check_part_not_seen(replace(MOBILE, seen=[part]), "mine", images, np.full(4, of), "test")
    check_part_not_seen(cfg, "fer2013", images, np.full(4, ""), "test")  # whose pixels tell that they are not


def test_near_twins_of_what_a_backbone_has_seen_are_counted_in_the_validation_split() -> None:
    near = np.array([True, False, True, True])
    images, usage = np.random.default_rng(0).integers(0, 256, (4, 48, 48), np.uint8), np.full(4, "Training")
    dataset: Any = SimpleNamespace(
        source="fer2013", images=images, usage=usage, val=np.array([0, 1, 2]), near_training=near
    )
    seen = replace(MOBILE, seen=["fer2013/Training"])
    assert seen_near_twins(seen, dataset) == 2
    assert seen_near_twins(MOBILE, dataset) == 0
    dataset.source = "another"
    assert seen_near_twins(seen, dataset) == 0
    dataset.source, dataset.near_training = "fer2013", None  # data.clean without near_twins: they were not sought
    assert seen_near_twins(seen, dataset) == 0
