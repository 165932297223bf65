"""What predict says of files that are missing, before it looks for a model."""

from __future__ import annotations

import subprocess
import sys


def test_files_that_are_missing_are_told_without_tensorflow():
    code = (
        "import sys; from fer_experiments.serving.predict import predict; from fer_experiments.config import Config\n"
    )
    code += "assert predict(Config(), ['/nowhere.png']) == 2; assert not {'tensorflow', 'mlflow'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "fer predict: /nowhere.png: no such file or folder\n")
