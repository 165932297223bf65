"""The words of a card that make its model again."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from own_conf import conf_in

from fer_experiments.config.compose import compose
from fer_experiments.registry.again import how_again
from fer_experiments.registry.candidates import Choice

DEFAULT = ["promote=default", "gate=default"]  # which the command implies


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["gate=mine"], ["gate=mine"]),
        (["gate=mine", "gate.floors={}"], ["gate=mine", "gate.floors={}"]),
        (["gate=mine", "promote.seeds=5", "+gate.recall.happy=0.5"], None),
        (["gate.floors={}"], ["gate.floors={}"]),
        (["gate=strict", "gate.worse={}", "gate.max_mb=null"], None),
        (["data.path=/data/fer2013.zip"], ["data.path=/data/fer2013.zip"]),
        (["data.path=/my faces/{a}.zip", "gate=mine"], None),
    ],
)
def test_they_make_the_same_gate_of_ones_own_too_and_find_the_data(
    given: list[str], words: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mine = conf_in(tmp_path, monkeypatch) / "gate" / "mine.yaml"
    mine.write_text("name: mine\nfloors: {roc_auc: 0.7}\nalpha: 0.01\n")
    config = compose([*DEFAULT, *given])
    text = how_again(config, Choice("sweep facenet-1", [], "final/val_accuracy", "max", "facenet-1"))
    (line,) = [line for line in text.splitlines() if line.startswith("    ")]
    said = shlex.split(line)
    said = said[said.index("sweep=facenet-1") + 1 :]
    assert words is None or said == words
    again = compose([*DEFAULT, *said])
    assert (again.gate, again.promote, again.data.path) == (config.gate, config.promote, config.data.path)
    assert replace(again, data=config.data) == config
