"""Named random streams: public ones derive from the run's seed, secret ones from entropy.

Every draw of a run comes from a stream with a name and a path (for instance the training step). So
a change in one part of the program does not change the draws of another, and resuming at step ``t``
needs no stored generator state.

Whoever knows the noise of a differentially private release can subtract it, and subsampling
amplifies privacy only if batches are unknown. The streams ``dp-noise`` and ``poisson`` are
therefore keyed by 256 bits of entropy that never leave the run's folder, and drawn with Philox
under a 128-bit key.

The stream ``private-copies`` (noise levels and augmentations of private images) is keyed in the
same way. The draws of an example depend on its place in the batch; if they were known, removing an
example would give every later one other copies, and the sum would change by more than the clipping
norm. With unknown draws, identically distributed for all places, neighbours can be compared draw by
draw, with the place of the missing example left empty. These draws are made by torch: on CUDA by
Philox with a 63-bit seed, on the CPU by a Mersenne Twister whose whole state is filled from Philox.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from dpbench.core.errors import RunFailed

PUBLIC_STREAMS = frozenset({"initial", "public-data", "diffusion-noise", "sampling", "evaluation"})
SECRET_STREAMS = frozenset({"poisson", "dp-noise", "private-copies"})
KEY_BYTES = 32
Module = TypeVar("Module", bound=nn.Module)


def _digest(*parts: object) -> bytes:
    # length-prefixed, so that no two different paths collide
    encoded = [str(part).encode() for part in parts]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
    return hashlib.sha256(message).digest()


def new_key() -> bytes:
    """A fresh secret key from the operating system's entropy, 32 bytes."""
    return secrets.token_bytes(KEY_BYTES)


def reproducible_key(seed: int) -> bytes:
    """The key of ``--reproducible``, which everyone who knows the seed can compute."""
    return _digest("reproducible", seed)


class Streams:
    """The random streams of one run.

    Args:
        seed: Public seed of the run; part of the record.
        key: Secret key, which must not appear in anything meant for release. None gives access to
            the public streams only, for methods and evaluators.

    Attributes:
        public_seed: The public seed.

    Raises:
        ValueError: The key is not 32 bytes long, or a stream is requested that does not exist.
    """

    def __init__(self, seed: int, key: bytes | None = None) -> None:
        """Store seed and key."""
        if key is not None and len(key) != KEY_BYTES:
            raise ValueError(f"the noise key must have {KEY_BYTES} bytes, not {len(key)}")
        self.public_seed = seed
        self._key = key

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be pickled or copied with the key in it.

        Raises:
            RunFailed: There is a key.
        """
        if self._key is not None:
            raise RunFailed(
                "random streams with the secret key cannot be pickled or copied: whoever has the "
                "key can take the noise off every release"
            )
        return super().__reduce_ex__(protocol)

    def seed(self, name: str, *path: object) -> int:
        """A seed in [0, 2**63) for the public stream ``name`` at ``path``."""
        if name not in PUBLIC_STREAMS:
            raise ValueError(f"{name!r} is no public stream: use one of {sorted(PUBLIC_STREAMS)}")
        return int.from_bytes(_digest(self.public_seed, name, *path)[:8], "big") >> 1

    def public(
        self, name: str, *path: object, device: torch.device | str = "cpu"
    ) -> torch.Generator:
        """A generator on ``device`` at the start of the public stream ``name`` at ``path``."""
        return torch.Generator(device).manual_seed(self.seed(name, *path))

    def secret(self, name: str, *path: object) -> np.random.Generator:
        """A NumPy generator at the start of the secret stream ``name`` at ``path``."""
        if name not in SECRET_STREAMS:
            raise ValueError(f"{name!r} is no secret stream: use one of {sorted(SECRET_STREAMS)}")
        if self._key is None:
            raise ValueError(f"{name!r} is for the mechanisms alone: there is no key here")
        key = int.from_bytes(_digest(self._key.hex(), name, *path)[:16], "big")
        return np.random.Generator(np.random.Philox(key=key))

    def secret_torch(
        self, name: str, *path: object, device: torch.device | str = "cpu"
    ) -> torch.Generator:
        """A generator on ``device`` at the start of the secret stream ``name`` at ``path``."""
        rng = self.secret(name, *path)
        generator = torch.Generator(device)
        if generator.device.type != "cpu":
            return generator.manual_seed(int(rng.integers(2**63)))
        # on the CPU manual_seed keeps 32 bits, few enough to try them all, so the whole state of
        # the Mersenne Twister is set: 624 words of 32 bits, each in 64, behind a header of 24 bytes
        generator.manual_seed(0)
        state = generator.get_state().numpy()
        words = rng.integers(0, 2**32, 624, dtype=np.uint64)
        state[24 : 24 + words.nbytes] = words.view(np.uint8)
        return generator.set_state(torch.from_numpy(state))


def initialised(build: Callable[..., Module], *arguments: object, seed: int) -> Module:
    """Build a module whose initial weights are drawn from ``seed``.

    torch's layers initialise from the global generator, so that is seeded and then restored.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(*arguments)
