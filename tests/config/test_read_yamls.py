"""What the YAMLs of conf/ say, and those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_conf import conf_in

from fer_experiments.config import yaml_of
from fer_experiments.errors import UserError


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("task: gefühl\n".encode("latin-1"), "not readable as text in UTF-8: .*; mend it"),
        (b"name: [a\n", "not readable as YAML: "),
        (b"name: a\nname: b\n", "not readable as YAML: .*duplicate key"),
        (b"- name\n", "must hold keys and values"),
    ],
)
def test_a_yaml_that_cannot_be_read_is_named(
    content: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = conf_in(tmp_path, monkeypatch) / "head" / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"^conf/head/mine\.yaml: {said}") as refused:
        yaml_of("head", "mine")
    assert "\n" not in str(refused.value)
    file.write_text("name: mine\n")
    assert yaml_of("head", "mine") == {"name": "mine"}, "once it is mended"
