"""Which GPUs each worker process on this machine sees."""

from __future__ import annotations

import os

from fer_experiments.config import ComputeConfig
from fer_experiments.environment import gpus
from fer_experiments.errors import UserError


def gpu_shares(compute: ComputeConfig) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each slot: GPUs of its own, or one that it shares.

    Raises:
        UserError: not that many GPUs, or a number of them that is neither whole nor a share of one.
    """
    each = compute.gpus_per_trial
    devices = visible_gpus()
    if each < 1:
        shares = devices * int(1 / each + 1e-9)  # the first slots are spread over all GPUs
    elif each == int(each):
        shares = [",".join(devices[i : i + int(each)]) for i in range(0, len(devices) - int(each) + 1, int(each))]
    else:
        raise UserError(f"compute.gpus_per_trial={each}: must be a whole number, or less than 1 to share a GPU")
    if not shares or (compute.workers or 0) > len(shares):
        workers = f" compute.workers={compute.workers}" if compute.workers else ""
        raise UserError(
            f"compute.gpus_per_trial={each}{workers}: there is room for {len(shares)} trials on {len(devices)} GPUs "
            "(nvidia-smi, CUDA_VISIBLE_DEVICES); lower them, or say compute.gpus_per_trial=0"
        )
    return shares[: compute.workers]


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(i) for i in range(len(gpus()))]
    devices = [device.strip() for device in named.split(",")]
    valid = next((i for i, device in enumerate(devices) if device in ("", "-1", "NoDevFiles")), len(devices))
    return devices[:valid]  # CUDA ignores what follows an invalid one
