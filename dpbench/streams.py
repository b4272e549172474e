"""Named random streams: public ones from the run's seed, secret ones from entropy.

Every draw of a run comes from a stream with a name and a path (for instance the training step),
so that changing one part of the program changes the draws of no other part, and resuming at step
``t`` needs no stored generator state.

Whoever knows the noise of a differentially private release can subtract it. The streams
``poisson`` and ``dp-noise`` are therefore keyed by 256 bits of entropy that never leave the run's
folder, and drawn with Philox under a 128-bit key. (torch's CPU generator keeps only 32 bits of its
seed, few enough to try them all, so it is never used for a secret stream.)
"""

from __future__ import annotations

import hashlib
import secrets

import numpy as np
import torch

PUBLIC_STREAMS = frozenset({"initial", "public-data", "diffusion-noise", "sampling", "evaluation"})
SECRET_STREAMS = frozenset({"poisson", "dp-noise"})
KEY_BYTES = 32


def _digest(*parts: object) -> bytes:
    # length-prefixed, so that no two different paths collide
    encoded = [str(part).encode() for part in parts]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
    return hashlib.sha256(message).digest()


def new_key() -> bytes:
    """A fresh secret key from the operating system's entropy, 32 bytes."""
    return secrets.token_bytes(KEY_BYTES)


def reproducible_key(seed: int) -> bytes:
    """The key of ``--reproducible``: known to anyone who knows the seed, so it hides nothing."""
    return _digest("reproducible", seed)


class Streams:
    """The random streams of one run.

    Args:
        seed: The run's public seed; goes into the record.
        key: The secret key; never goes into anything meant for release.

    Raises:
        ValueError: The key is not 32 bytes long, or a stream is asked for that does not exist.
    """

    def __init__(self, seed: int, key: bytes) -> None:
        """Keep seed and key."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"the noise key must have {KEY_BYTES} bytes, not {len(key)}")
        self._seed = seed
        self._key = key

    def seed(self, name: str, *path: object) -> int:
        """A seed in [0, 2**63) for the public stream ``name`` at ``path``."""
        if name not in PUBLIC_STREAMS:
            raise ValueError(f"{name!r} is no public stream; there are {sorted(PUBLIC_STREAMS)}")
        return int.from_bytes(_digest(self._seed, name, *path)[:8], "big") >> 1

    def public(
        self, name: str, *path: object, device: torch.device | str = "cpu"
    ) -> torch.Generator:
        """A generator on ``device`` at the start of the public stream ``name`` at ``path``."""
        return torch.Generator(device).manual_seed(self.seed(name, *path))

    def secret(self, name: str, *path: object) -> np.random.Generator:
        """A generator at the start of the secret stream ``name`` at ``path``."""
        if name not in SECRET_STREAMS:
            raise ValueError(f"{name!r} is no secret stream; there are {sorted(SECRET_STREAMS)}")
        key = int.from_bytes(_digest(self._key.hex(), name, *path)[:16], "big")
        return np.random.Generator(np.random.Philox(key=key))
