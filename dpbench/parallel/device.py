"""The device to compute on."""

from __future__ import annotations

import resource
import sys

import torch

from dpbench.core.errors import UserError
from dpbench.parallel.ranks import ALONE, Ranks


def resolve_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The device that a name means; ``auto`` is CUDA where there is one.

    Each of several ranks on a machine has a CUDA device of its own.

    Raises:
        UserError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.size > 1:
        if name not in ("cuda", "cpu"):
            raise UserError(
                f"--device {name} is no device for {ranks.size} processes: use --device cuda, "
                "where each has one of its own, or cpu"
            )
        if name == "cuda" and ranks.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"{ranks.local_size} processes need as many CUDA devices; here are "
                f"{torch.cuda.device_count()}: start fewer, or use --device cpu"
            )
        name = name if name == "cpu" else f"cuda:{ranks.local_rank}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        torch.Generator(device)  # refuses what cannot draw, such as meta
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"no device {name!r} here: use --device cpu, or auto") from error
    return device


def prepare(device: torch.device) -> None:
    """Set the process up to compute on a device."""
    if device.type == "cpu":
        torch.set_num_threads(1)  # cores are used by whole pieces of work: see parallel.cores
    elif device.index is not None:
        torch.cuda.set_device(device)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process has held so far, in MiB.

    On CUDA, it is that of the GPU, as allocated by torch; else that of the process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
