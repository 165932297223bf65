"""The examples of docs/library.md run as they stand, one after another in one session."""

from __future__ import annotations

import re
from pathlib import Path

from fer_experiments.config import project_root


def test_every_example_runs(tmp_path: Path):
    page = (project_root() / "docs" / "library.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(examples) >= 6
    names = {"folder": tmp_path}
    for example in examples:
        exec(compile(example, "docs/library.md", "exec"), names)
    assert names["probabilities"].shape == (5, 2)
    assert len(names["trials"]) == 2
