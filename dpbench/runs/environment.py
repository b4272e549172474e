"""The versions and the machine that a record names."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dpbench.core.registry import OURS

_PACKAGES = (OURS, "torch", "torchvision", "numpy", "scipy", "dp-accounting", "opacus")


def environment() -> dict[str, str | None]:
    """Versions and machine, for records."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "git_revision": _git_revision(),
        **packages,
    }


def code() -> dict[str, str | None]:
    """What identifies the code that makes the releases."""
    return {"package": f"{OURS} {version(OURS)}", "git_revision": _git_revision()}


def _git_revision() -> str | None:
    """The revision of dpbench's own source tree, with "+" if it was changed; None if installed."""
    here = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # installed into somebody else's repository
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None
