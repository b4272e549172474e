"""Broken secret streams."""

from __future__ import annotations

import numpy as np

from dpbench.core.streams import Streams


class SeededStreams(Streams):
    """Secret streams that derive from the public seed."""

    def secret(self, name: str, *path: object) -> np.random.Generator:
        return np.random.default_rng([self.public_seed, *str((name, path)).encode()])


class ShortStreams(Streams):
    """Uses 32 bits of the key."""

    def secret(self, name: str, *path: object) -> np.random.Generator:
        return Streams(0, self._key[:4] + bytes(28)).secret(name, *path)


class RunTogetherStreams(Streams):
    """Joins the parts of a path without marking where they end."""

    def secret(self, name: str, *path: object) -> np.random.Generator:
        return super().secret(name, "".join(map(str, path)))
