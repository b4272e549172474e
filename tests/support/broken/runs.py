"""Broken runs and methods: what leaks around the mechanisms, and keys that are not kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpbench.baselines.class_mean import ClassMean
from dpbench.core.progress import Silent
from dpbench.core.streams import new_key
from dpbench.privacy import ledger
from dpbench.privacy.mechanisms import PrivateImages
from dpbench.records.run_record import RunRecord, RunSpec
from dpbench.runs import execute, steps
from dpbench.runs.folder import SAMPLES, open_record
from dpbench.runs.training_folder import BEGUN
from tests.support import methods

# before a twin is put in the place of one
_class_mean_fit = ClassMean.fit
_noise_key = steps.RunSteps.noise_key
_certificate = ledger.PrivacyLedger.certificate
_fit_method = steps.fit_method
_arrays = steps.RunSteps._arrays


def class_sizes_from_the_images(self: ClassMean, private: PrivateImages, run: Any) -> Any:
    sampler = _class_mean_fit(self, private, run)
    sizes = torch.bincount(methods.stolen(private).labels, minlength=10)
    means = sampler.means.float() * (private.info.nominal_size / 10) / sizes.view(-1, 1, 1, 1)
    return dataclasses.replace(sampler, means=means.clamp(0, 255).byte())


def normalised_by_the_batch(pixels: torch.Tensor) -> torch.Tensor:
    x = pixels.float()
    return (x - x.mean()) / x.std()


def labels_of_the_private_set(count: int, classes: int) -> torch.Tensor:
    return execute.load("digits", None, Silent()).splits.train.labels[:count]


def key_in_the_record(self: Any, training: Path) -> bytes:
    found = _noise_key(self, training)
    self.record.resolved["noise_key"] = found.hex()
    return found


def key_in_the_checkpoint(honest: Any, self: Any, private: PrivateImages, run: Any) -> Any:
    sampler = honest(self, private, run)
    # a private attribute of the handle, which Python cannot hide
    key = private._PrivateImages__streams._key  # type: ignore[attr-defined]
    sampler.__dict__["state"] = lambda: {"mean": sampler.mean, "key": key.hex()}
    return sampler


def key_that_is_made_anew(self: Any, training: Path) -> bytes:
    self.record.resolved.setdefault(BEGUN, "nobody looks at it")
    return new_key()


def statistics_in_the_checkpoint(planned: Any, dataset: Any, *rest: Any) -> Any:
    sampler = _fit_method(planned, dataset, *rest)
    return dataclasses.replace(sampler, mean=sampler.mean + dataset.splits.train.pixels.sum() / 1e9)


def samples_in_a_private_order(self: Any, name: str, arrays: Any) -> None:
    if name == SAMPLES:
        first = int(self.dataset.splits.train.pixels.sum()) % len(arrays["images"])
        arrays = {**arrays, "images": np.roll(arrays["images"], first, axis=0)}
    _arrays(self, name, arrays)


def overwrites_nothing(folder: Path, spec: RunSpec, overwrite: bool) -> RunRecord:
    return open_record(folder, spec, overwrite=False)


def certified_as_secret(self: Any, reproducible: bool) -> dict[str, Any]:
    return _certificate(self, False)
