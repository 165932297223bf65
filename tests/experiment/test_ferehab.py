"""FERehab's systems as experiments: what learns in them is what their table counts."""

from __future__ import annotations

import pytest

from fer_experiments.backbones.networks import load_backbone
from fer_experiments.config.compose import compose
from fer_experiments.training.finetuning import unfreeze
from fer_experiments.training.heads import build_head
from fer_experiments.training.result import trainable_parameters

COUNTED = {
    "inception_v3": (21_768_352, 2_105_351),
    "inception_resnet_v2": (54_276_192, 1_581_063),
    "resnet50_vggface2": (23_508_032, 2_105_351),
}


@pytest.mark.parametrize("name", COUNTED)
def test_as_many_parameters_learn_as_were_counted(name: str):
    config = compose([f"experiment=ferehab/{name}", "backbone.weights=null"])
    assert config.backbone.interpolation == "bicubic"
    backbone = load_backbone(config.backbone, (48, 48, 1))
    unfreeze(backbone.trunk, config.training)
    head = build_head(config.head, [tensor.shape[1:] for tensor in backbone.model.outputs], 7)
    assert (trainable_parameters(backbone.trunk), trainable_parameters(head)) == COUNTED[name]
