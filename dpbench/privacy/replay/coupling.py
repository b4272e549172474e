"""Coupled randomness: every image has the same draws in D and in D'."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dpbench.core.streams import Streams
from dpbench.privacy.clipping import Objective, Predict
from dpbench.privacy.replay.neighbours import Neighbour


class WatchedObjective:
    """An objective that draws from a generator for each image, and reports what it drew."""

    def __init__(
        self,
        objective: Objective,
        generator: Callable[[bytes, torch.device], torch.Generator],
        watch: Callable[[Sequence[bytes], tuple[Tensor, ...]], tuple[Tensor, ...]],
    ) -> None:
        """Wrap ``objective``.

        Args:
            objective: The method's objective.
            generator: Returns the generator of an image, from the digest of its content.
            watch: Receives the digests and the drawn copies; returns the copies to train on.
        """
        self._objective = objective
        self._generator = generator
        self._watch = watch

    @property
    def multiplicity(self) -> int:
        """K of the wrapped objective."""
        return self._objective.multiplicity

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Draw the copies of each image from the generator of its content."""
        contents = digests_of(pixels, labels)
        with _OwnDraws([self._generator(content, rng.device) for content in contents]):
            copies = self._objective.draw(pixels, labels, rng)
        return self._watch(contents, copies)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        """Loss of the wrapped objective."""
        return self._objective.loss(predict, *copies)


class _OwnDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes random operators draw each row of a batch from a generator of its own.

    With a single generator, removing an image would change the draws of all images behind it. The
    batch is taken to be the first dimension; draws of another first size are made once for all.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generators = generators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is None:
            return func(*args, **kwargs)
        batched = [self._is_batched(arg) for arg in args]
        if not any(batched):
            return func(*args, **kwargs)
        rows = []
        for i, generator in enumerate(self._generators):
            own = [_row(arg, i) if b else arg for arg, b in zip(args, batched, strict=True)]
            rows.append(func(*own, **{**kwargs, "generator": generator}))
        return args[0] if func._schema.is_mutable else torch.cat(rows)

    def _is_batched(self, arg: Any) -> bool:
        """Whether an argument is a tensor, or a shape, with one row for each image."""
        shape = arg.shape if isinstance(arg, Tensor) else arg if isinstance(arg, list) else ()
        return len(shape) > 0 and 0 < shape[0] == len(self._generators)


def _row(arg: Any, i: int) -> Any:
    return arg[i : i + 1] if isinstance(arg, Tensor) else [1, *arg[1:]]


class CoupledStreams(Streams):
    """Secret streams with the same draws for an image in D and in D', and without noise."""

    def __init__(self, neighbour: Neighbour, key: bytes) -> None:
        """Couple the streams of ``neighbour`` to those of D under ``key``."""
        super().__init__(0, key)
        self._neighbour = neighbour
        self._step: tuple[object, ...] = ()

    def secret(self, name: str, *path: object) -> np.random.Generator:
        """A secret stream: Poisson draws by place, noise of standard deviation 0."""
        rng = super().secret(name, *path)
        if name == "poisson":
            self._step = path  # of the batch that is drawn now; also where a run resumes
            return _CoupledDraws(rng, self._neighbour)
        return _NoNoise(rng.bit_generator) if name == "dp-noise" else rng

    def of_image(self, content: bytes, device: torch.device) -> torch.Generator:
        """The generator of an image's copies in this step, whatever else is in the batch.

        Args:
            content: Digest of the image with its label.
            device: Device of the generator.
        """
        return self.secret_torch("private-copies", *self._step, content.hex(), device=device)


class _CoupledDraws(np.random.Generator):
    """Uniform draws that belong to the places of images in D rather than to their indices."""

    def __init__(self, rng: np.random.Generator, neighbour: Neighbour) -> None:
        super().__init__(rng.bit_generator)
        self._neighbour = neighbour

    def random(self, size: Any = None, *rest: Any, **named: Any) -> Any:
        if size != len(self._neighbour.places):
            return super().random(size, *rest, **named)
        draws = super().random(max(self._neighbour.changed) + 1, *rest, **named)
        draws[list(self._neighbour.changed)] = 0  # below every sample rate, so always sampled
        return draws[self._neighbour.places]


class _NoNoise(np.random.Generator):
    """Normal noise of standard deviation 0."""

    def standard_normal(self, *arguments: Any, **named: Any) -> Any:
        return 0 * super().standard_normal(*arguments, **named)


def digests_of(pixels: Tensor, labels: Tensor) -> list[bytes]:
    """Digest of each image with its label. Identical images have identical draws."""
    rows = (part.detach().cpu().contiguous().numpy() for part in (pixels, labels))
    return [
        hashlib.sha256(image.tobytes() + label.tobytes()).digest()
        for image, label in zip(*rows, strict=True)
    ]


def digest_of(*parts: Tensor) -> bytes:
    """SHA-256 digest of the values of tensors."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.digest()
