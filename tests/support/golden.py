"""What methods and sources gave when their versions were stated; held by ``golden.json``.

``python -m tests.support.golden`` writes the file anew, after a version was raised.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpbench.api.method import Predictor, Sampler
from dpbench.core.progress import Silent
from dpbench.core.registry import OURS, Kind, entries, load
from dpbench.runs.public_images import programmatic_images
from tests.support.fitting import INFO, fitted, outcome

FILE = Path(__file__).with_name("golden.json")
# of 255; digests on one thread and two, with AVX-512 and without, differ by less than 0.1
TOLERANCE = 0.75


def digest_of_images(pixels: Tensor) -> list[float]:
    """Mean grey of the quarters of each of 20 images; ``(N, C, H, W)`` to 4 N numbers."""
    grey = pixels.double().mean(1, keepdim=True)
    return torch.nn.functional.adaptive_avg_pool2d(grey, 2).flatten().tolist()


def digest_of_method(learnt: Sampler | Predictor) -> list[float]:
    """The digest of its samples, or of its predictions as percentages."""
    given = outcome(learnt)
    if not isinstance(learnt, Sampler):
        return (100 * given.softmax(1)).double().flatten().tolist()
    return digest_of_images(given)


def digest_of_source(name: str) -> list[float]:
    """The digest of its first images."""
    return digest_of_images(programmatic_images(name, 20, INFO.spec, 10, 0, Silent()).pixels)


def ours(kind: Kind) -> list[str]:
    """Names of the built-in entries of a kind."""
    return [name for name, entry in entries(kind).items() if entry.distribution == OURS]


def verdict(kind: Kind, name: str, digest: list[float]) -> str:
    """Say in a line why a version does not stand for a digest; ``""`` if it does."""
    kept = read()[kind].get(name)
    version = load(kind, name).version
    if kept is None or kept["version"] != version:
        return f"{name} has version {version}: run python -m tests.support.golden and commit it"
    moved = max(abs(a - b) for a, b in zip(kept["digest"], digest, strict=True))
    if moved > TOLERANCE:
        return (
            f"results of {name} moved by {moved:.3g} of 255, and its version is still {version}: "
            "raise it, then run python -m tests.support.golden"
        )
    return ""


def read() -> dict[str, dict[str, Any]]:
    """The file: by kind and name, the version and the digest."""
    content: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def _entry(kind: Kind, name: str, digest: list[float]) -> dict[str, Any]:
    rounded = [round(each, 1) for each in digest]
    return {"version": load(kind, name).version, "digest": rounded}


def main() -> None:
    """Write the file."""
    torch.set_num_threads(1)
    methods, sources = {}, {}
    for name in ours("method"):
        with tempfile.TemporaryDirectory() as folder:
            _, learnt, _ = fitted(name, Path(folder))
            methods[name] = _entry("method", name, digest_of_method(learnt))
    for name in ours("source"):
        sources[name] = _entry("source", name, digest_of_source(name))
    lines = [
        f'"{kind}": {{\n'
        + ",\n".join(f'"{name}": {json.dumps(each)}' for name, each in found.items())
        + "\n}"
        for kind, found in (("method", methods), ("source", sources))
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
