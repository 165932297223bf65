"""What a model says in a fresh process, as of somebody who does not have this package."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_experiments.ambient import open_environment
from fer_experiments.errors import UserError


def predict_fresh(what: str, code: str, arguments: Sequence[str], images: np.ndarray) -> np.ndarray:
    """Probabilities [n, classes] of images, computed by Python code in a process of its own.

    Args:
        what: is loaded there, for the message.
        code: finds in sys.argv the arguments, the file of the images (.npy), and the file for the probabilities.
        images: uint8 [n, h, w].

    Raises:
        UserError: the process fails; with the last line that it says.
    """
    import keras

    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "images.npy", Path(folder) / "probabilities.npy"
        np.save(given, images)
        # -P, and another folder: the checkout is not on the path by chance.
        command = [sys.executable, "-P", "-c", code, *arguments, str(given), str(got)]
        environment = {**open_environment(), "KERAS_BACKEND": keras.config.backend()}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise UserError(f"{what} cannot be used in a fresh process ({reason[:200]})")
        probabilities: np.ndarray = np.load(got)
        return probabilities
