"""The mutation matrix: every way in which privacy is broken on purpose, and what catches it.

A mutant replaces a real function, and its detector looks at what then comes through the real path.
The matrix fails where a detector misses its mutant, or fires on the code as it is. ``pytest -m
mutation`` ends with the table. More twins of single functions stand beside the checks that catch
them, in ``test_privacy_*.py``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dpbench.baselines.class_mean import ClassMean
from dpbench.core.errors import RunFailed
from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.core.registry import load
from dpbench.core.streams import new_key
from dpbench.data.catalog import CATALOG
from dpbench.data.load import Dataset
from dpbench.data.load import load as load_dataset
from dpbench.generators.diffusion import objective as adapter
from dpbench.privacy import dpsgd, ledger, mechanisms
from dpbench.privacy import epsilon as accountant
from dpbench.privacy.ledger import Allowance
from dpbench.privacy.mechanisms import PrivateImages
from dpbench.privacy.replay.neighbours import neighbours
from dpbench.runs import execute, steps
from dpbench.runs.check import replay
from dpbench.runs.folder import SAMPLES
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.request import private_set_info
from dpbench.training.loop import Stage
from tests.privacy.test_accounting import check_golden
from tests.privacy.test_gradients import case, check_against_autograd, check_physical_batches
from tests.privacy.test_ledger import (
    check_budget,
    check_certificate,
    check_executed,
    check_purposes,
    check_resume,
    check_written_first,
    send,
)
from tests.privacy.test_noise import check_average, check_noise, check_noise_is_secret
from tests.privacy.test_ranks import check_ranks
from tests.privacy.test_sampling import check_empty_batches, check_sampler
from tests.runs.test_check import failures, replayed
from tests.runs.test_noise_key import (
    check_noise_is_not_published,
    check_reproducible_noise_is_void_for_release,
)
from tests.support import broken, methods
from tests.support.command import TOY, Command

pytestmark = pytest.mark.mutation


@dataclass(frozen=True)
class Lab:
    """What mutants and detectors work with."""

    folder: Path
    patch: pytest.MonkeyPatch
    dpbench: Command
    toy: ModuleType


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dpbench: Command, toy: ModuleType) -> Lab:
    return Lab(tmp_path, monkeypatch, dpbench, toy)


# Detectors.


@dataclass(frozen=True)
class Detector:
    """Something that looks at the real path, and fails where it is broken."""

    name: str
    check: Callable[[Lab], object]


noise_statistics = Detector("noise statistics", lambda lab: check_noise())
noise_secrecy = Detector("noise against seed and key", lambda lab: check_noise_is_secret())
average = Detector("average against weights", lambda lab: check_average())
sampler_statistics = Detector("sampler statistics", lambda lab: check_sampler())
empty_batches = Detector("empty batches", lambda lab: check_empty_batches())
autograd = Detector(
    "naive autograd",
    lambda lab: check_against_autograd(dpsgd.clipped_sum, case("convolutions", 8)),
)
physical_batches = Detector("physical batch sizes", lambda lab: check_physical_batches(lab.patch))
several_ranks = Detector("one process and several", lambda lab: check_ranks(lab.patch))
executed = Detector("executed against accounted", lambda lab: check_executed(lab.folder))
resumed = Detector(
    "the same after an interruption",
    lambda lab: check_executed(lab.folder, 3, send(signal.SIGINT)),
)
golden = Detector("golden epsilons", lambda lab: check_golden(accountant.epsilon, 732))
key_attack = Detector(
    "attack on what is published",
    lambda lab: check_noise_is_not_published(lab.dpbench, lab.folder, lab.patch),
)
void_release = Detector(
    "attack on a reproducible run",
    lambda lab: check_reproducible_noise_is_void_for_release(lab.dpbench, lab.folder, lab.patch),
)


def of_the_ledger(name: str, check: Callable[[type[ledger.PrivacyLedger], Path], None]) -> Detector:
    return Detector(name, lambda lab: check(ledger.PrivacyLedger, lab.folder))


budget = of_the_ledger("spending over budget", check_budget)
journal = of_the_ledger("journal before release", check_written_first)
spending_again = of_the_ledger("spending after a resume", check_resume)
purposes = of_the_ledger("spending a purpose twice", check_purposes)
certificate = of_the_ledger("certificate of a run under way", check_certificate)


def _replay_of_a_method(lab: Lab) -> None:
    assert failures(replayed(METHOD(), "one removed", "white added", "NaN added")) == set()


def _replay_of_registered(name: str, *settings: str) -> Detector:
    def check(lab: Lab) -> None:
        method = resolve(load("method", name), name, "smoke", "digits", 1.0, settings).method
        sets = neighbours(load_dataset("digits", None, Silent()).splits.train)
        chosen = [each for each in sets if each.name in ("D", "white added")]
        info = private_set_info(CATALOG["digits"])
        assert failures(replay(method, info, chosen, Silent())) == set()

    return Detector(f"neighbour replay of {name}", check)


METHOD = methods.Honest
neighbour_replay = Detector("neighbour replay", _replay_of_a_method)
replay_of_dpdm = _replay_of_registered("dpdm", "steps=1")
replay_of_class_mean = _replay_of_registered("class-mean")


def _labels_of_samples(lab: Lab) -> None:
    """The labels of samples are the same for another set of private labels."""
    found = []
    for name, shift in (("D", 0), ("another", 1)):
        honest = execute.load

        def shifted(*arguments: Any, honest: Any = honest, shift: int = shift) -> Dataset:
            data = honest(*arguments)
            train = data.splits.train
            train = Images(train.pixels, (train.labels + shift) % data.info.classes)
            splits = dataclasses.replace(data.splits, train=train)
            return dataclasses.replace(data, splits=splits)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execute, "load", shifted)
            assert lab.dpbench(*TOY, "--out", lab.folder / name).code == 0
        with np.load(lab.folder / name / SAMPLES) as arrays:
            found.append(arrays["labels"].tolist())
    assert found[0] == found[1]


labels_of_samples = Detector("labels of another private set", _labels_of_samples)


def _noise_of_a_resumed_run(lab: Lab) -> None:
    """A run that dies makes no release again with other noise, and no more than are paid for."""
    honest, drawn = dpsgd.gaussian_noise, dict[int, set[bytes]]()

    def seen(like: Any, streams: Any, purpose: str, step: int) -> Any:
        noise = honest(like, streams, purpose, step)
        drawn.setdefault(step, set()).add(noise["mean"].numpy().tobytes())
        return noise

    def die(count: int) -> None:
        if count == 3:
            raise MemoryError

    lab.toy.HOOKS["step"] = die
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpsgd, "gaussian_noise", seen)
        assert lab.dpbench(*TOY, "--out", lab.folder / "run").code == 1
        assert sorted(drawn) == [0, 1]
        assert lab.dpbench(*TOY, "--out", lab.folder / "run").code == 0
    assert {step: len(noises) for step, noises in drawn.items()} == {0: 1, 1: 1, 2: 1, 3: 1}
    (event,) = json.loads((lab.folder / "run" / "record.json").read_text())["privacy"]["events"]
    assert event["released"] == event["steps"] == len(drawn)


noise_of_a_resumed_run = Detector("noise of a run that died", _noise_of_a_resumed_run)


# Mutants.


@dataclass(frozen=True)
class Mutant:
    """A way to break privacy.

    Attributes:
        name: What it is.
        breaks: What it breaks.
        detector: What must catch it.
        apply: Makes the real path do it.
    """

    name: str
    breaks: str
    detector: Detector
    apply: Callable[[Lab], None]


Act = Callable[[Lab], None]


def instead(owner: Any, name: str, twin: Any) -> Act:
    return lambda lab: lab.patch.setattr(owner, name, twin)


def method(cheat: type[methods.Honest]) -> Act:
    return lambda lab: lab.patch.setitem(globals(), "METHOD", cheat)


def engine(twin: Any) -> Act:
    return instead(dpsgd, "clipped_sum", twin)


def noise(twin: broken.noise.Noise) -> Act:
    return instead(dpsgd, "gaussian_noise", twin)


def sampler(twin: Any) -> Act:
    return instead(dpsgd, "poisson_sample", twin)


def training(twin: Any) -> Act:
    return instead(mechanisms, "train", twin)


def class_sizes_from_the_images(self: ClassMean, private: PrivateImages, run: Any) -> Any:
    sampler = _class_mean_fit(self, private, run)
    sizes = torch.bincount(methods.stolen(private).labels, minlength=10)
    means = sampler.means.float() * (private.info.nominal_size / 10) / sizes.view(-1, 1, 1, 1)
    return dataclasses.replace(sampler, means=means.clamp(0, 255).byte())


_class_mean_fit = ClassMean.fit


def normalised_by_the_batch(pixels: torch.Tensor) -> torch.Tensor:
    x = pixels.float()
    return (x - x.mean()) / x.std()


def labels_of_the_private_set(count: int, classes: int) -> torch.Tensor:
    return execute.load("digits", None, Silent()).splits.train.labels[:count]


def key_in_the_record(lab: Lab) -> None:
    honest = steps.RunSteps.noise_key

    def key(self: Any, training: Path) -> bytes:
        found = honest(self, training)
        self.record.resolved["noise_key"] = found.hex()
        return found

    lab.patch.setattr(steps.RunSteps, "noise_key", key)


def key_in_the_checkpoint(lab: Lab) -> None:
    honest = lab.toy.Toy.fit

    def fit(self: Any, private: PrivateImages, run: Any) -> Any:
        sampler = honest(self, private, run)
        # a private attribute of the handle, which Python cannot hide
        sampler.__dict__["streams"] = private._PrivateImages__streams  # type: ignore[attr-defined]
        return sampler

    lab.patch.setattr(lab.toy.Toy, "fit", fit)


def key_that_is_made_anew(self: Any, training: Path) -> bytes:
    return new_key()


def certified_as_secret(self: Any, reproducible: bool) -> dict[str, Any]:
    return _certificate(self, False)


_certificate = ledger.PrivacyLedger.certificate

MUTANTS = (
    # the gradient of an example
    Mutant("no clipping", "sensitivity", neighbour_replay, engine(broken.clipping.never_clips)),
    Mutant(
        "clip per copy without mean",
        "sensitivity, K times C",
        neighbour_replay,
        engine(broken.clipping.clips_each_copy_without_mean),
    ),
    Mutant(
        "clip per copy with mean",
        "the stated gradient",
        autograd,
        engine(broken.clipping.clips_each_copy),
    ),
    Mutant("clip per tensor", "sensitivity", autograd, engine(broken.clipping.clips_each_tensor)),
    Mutant(
        "clip the batch", "sensitivity", physical_batches, engine(broken.clipping.clips_the_batch)
    ),
    Mutant(
        "norms in bfloat16",
        "sensitivity",
        autograd,
        engine(broken.clipping.takes_norms_in_bfloat16),
    ),
    Mutant(
        "NaN gradient let through",
        "sensitivity",
        neighbour_replay,
        engine(broken.clipping.lets_nan_through),
    ),
    Mutant(
        "no clipping of a one-shot sum",
        "sensitivity",
        neighbour_replay,
        instead(mechanisms, "clip_factors", lambda norms, c: torch.ones_like(norms)),
    ),
    Mutant(
        "divisor by the actual batch",
        "sensitivity",
        neighbour_replay,
        instead(dpsgd, "gradient_sum", broken.clipping.divides_by_the_realised_batch),
    ),
    # noise
    Mutant("noise x 0", "noise", noise_statistics, noise(broken.noise.scaled_by(0.0))),
    Mutant("noise x 0.1", "noise", noise_statistics, noise(broken.noise.scaled_by(0.1))),
    Mutant("noise x 0.97", "noise", noise_statistics, noise(broken.noise.scaled_by(0.97))),
    Mutant(
        "noise missing on one tensor",
        "noise",
        noise_statistics,
        noise(broken.noise.missing_on("bias")),
    ),
    Mutant(
        "noise seed reused by steps",
        "independent noise",
        noise_statistics,
        noise(broken.noise.the_same_at_every_step),
    ),
    Mutant(
        "noise seed reused by purposes",
        "independent noise",
        noise_statistics,
        noise(broken.noise.the_same_for_every_purpose),
    ),
    Mutant(
        "noise from the public seed",
        "secrecy of noise",
        noise_secrecy,
        noise(broken.noise.from_the_public_seed),
    ),
    Mutant(
        "average of weights without noise",
        "every release has noise",
        average,
        training(broken.training.averages_weights_without_noise),
    ),
    # sampling
    Mutant(
        "shuffling instead of Poisson",
        "amplification by sampling",
        sampler_statistics,
        sampler(broken.sampling.shuffles),
    ),
    Mutant(
        "one batch again and again",
        "amplification by sampling",
        sampler_statistics,
        sampler(broken.sampling.takes_the_first_batch_again),
    ),
    Mutant(
        "empty batches drawn again",
        "amplification by sampling",
        empty_batches,
        sampler(broken.sampling.never_empty),
    ),
    # accounting
    Mutant(
        "wrong sample rate in the event",
        "what is executed is accounted",
        executed,
        training(broken.training.samples_at_twice_the_rate),
    ),
    Mutant(
        "wrong noise in the event",
        "what is executed is accounted",
        executed,
        training(broken.training.adds_a_tenth_less_noise),
    ),
    Mutant(
        "wrong clipping norm in the event",
        "what is executed is accounted",
        executed,
        training(broken.training.clips_at_twice_the_norm),
    ),
    Mutant(
        "steps executed > steps accounted",
        "what is executed is accounted",
        executed,
        training(broken.training.makes_one_step_more),
    ),
    Mutant(
        "sample rate of a loader",
        "epsilon",
        golden,
        instead(accountant, "epsilon", broken.accounting.takes_the_rate_of_a_loader),
    ),
    Mutant(
        "epsilon by GDP",
        "epsilon",
        golden,
        instead(accountant, "epsilon", broken.accounting.gaussian_dp),
    ),
    Mutant(
        "ledger without a limit",
        "budget",
        budget,
        instead(ledger, "PrivacyLedger", broken.ledger.Lenient),
    ),
    Mutant(
        "ledger that writes late",
        "ledger first, release after",
        journal,
        instead(ledger, "PrivacyLedger", broken.ledger.Unwritten),
    ),
    Mutant(
        "one purpose spent twice",
        "independent noise",
        purposes,
        instead(ledger, "PrivacyLedger", broken.ledger.Permissive),
    ),
    Mutant(
        "certificate before the end",
        "what is executed is accounted",
        certificate,
        instead(ledger, "PrivacyLedger", broken.ledger.Hasty),
    ),
    # resuming
    Mutant(
        "resume from the first step",
        "no release is made twice",
        resumed,
        instead(Stage, "_load", broken.training.starts_over),
    ),
    Mutant(
        "resume that forgets its releases",
        "no release is made twice",
        resumed,
        instead(Allowance, "state_dict", lambda self: {"released": 0}),
    ),
    Mutant(
        "resume that forgets its ledger",
        "budget",
        spending_again,
        instead(ledger, "PrivacyLedger", broken.ledger.Forgetful),
    ),
    Mutant(
        "resume with a new noise key",
        "no release is made twice",
        noise_of_a_resumed_run,
        instead(steps.RunSteps, "noise_key", key_that_is_made_anew),
    ),
    # what goes around the mechanisms
    Mutant(
        "unledgered statistic: class sizes",
        "mechanisms only",
        replay_of_class_mean,
        instead(ClassMean, "fit", class_sizes_from_the_images),
    ),
    Mutant(
        "normalisation by the batch",
        "one image, one gradient",
        replay_of_dpdm,
        instead(adapter, "from_pixels", normalised_by_the_batch),
    ),
    Mutant(
        "labels of samples from the private set",
        "mechanisms only",
        labels_of_samples,
        instead(steps, "uniform_labels", labels_of_the_private_set),
    ),
    Mutant(
        "labels of a sampler from the private set",
        "mechanisms only",
        neighbour_replay,
        method(methods.TakesLabelsFromTheImages),
    ),
    Mutant(
        "statistic leaked by a callback",
        "mechanisms only",
        neighbour_replay,
        method(methods.LeaksWhatItsFeaturesSaw),
    ),
    Mutant(
        "division by the realised count",
        "mechanisms only",
        neighbour_replay,
        method(methods.DividesByTheRealisedCount),
    ),
    Mutant(
        "copies that know the batch size",
        "one image, one gradient",
        neighbour_replay,
        method(methods.WeightsByTheRealisedBatch),
    ),
    Mutant(
        "objective that keeps a state",
        "one image, one gradient",
        neighbour_replay,
        method(methods.KeepsAStateBetweenSteps),
    ),
    Mutant(
        "clipping norm from the images",
        "mechanisms only",
        neighbour_replay,
        method(methods.ClipsAtAQuantileOfTheImages),
    ),
    # several processes
    Mutant(
        "noise of every rank added up",
        "noise",
        several_ranks,
        noise(broken.ranks.of_its_own_added_up),
    ),
    Mutant("each rank its own noise", "noise", several_ranks, noise(broken.ranks.of_its_own)),
    Mutant(
        "each rank its own batch",
        "sampling",
        several_ranks,
        instead(dpsgd, "gradient_sum", broken.ranks.samples_on_every_rank),
    ),
    Mutant(
        "divisor by a rank's share",
        "sensitivity",
        several_ranks,
        instead(dpsgd, "gradient_sum", broken.ranks.divides_by_its_share),
    ),
    Mutant(
        "copies drawn one after another",
        "one image, one gradient",
        physical_batches,
        instead(dpsgd, "drawn_copies", broken.clipping.draws_one_after_another),
    ),
    # the key
    Mutant("key in the record", "secrecy of noise", key_attack, key_in_the_record),
    Mutant("key in the checkpoint", "secrecy of noise", key_attack, key_in_the_checkpoint),
    Mutant(
        "key left behind",
        "secrecy of noise",
        key_attack,
        instead(steps, "shutil", SimpleNamespace(rmtree=lambda folder: None)),
    ),
    Mutant(
        "key from the public seed",
        "secrecy of noise",
        key_attack,
        instead(steps, "new_key", lambda: hashlib.sha256(b"0").digest()),
    ),
    Mutant(
        "key from the clock",
        "secrecy of noise",
        key_attack,
        instead(steps, "new_key", lambda: hashlib.sha256(str(int(time.time())).encode()).digest()),
    ),
    Mutant(
        "streams without the key",
        "secrecy of noise",
        key_attack,
        instead(steps, "Streams", broken.streams.SeededStreams),
    ),
    Mutant(
        "reproducible run certified",
        "secrecy of noise",
        void_release,
        instead(ledger.PrivacyLedger, "certificate", certified_as_secret),
    ),
)
DETECTORS = {mutant.detector.name: mutant.detector for mutant in MUTANTS}


@pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS)
def test_a_detector_is_silent_on_the_code_as_it_is(detector: Detector, lab: Lab) -> None:
    detector.check(lab)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(
    mutant: Mutant, lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    record_property("mutant", (mutant.name, mutant.breaks, mutant.detector.name))
    mutant.apply(lab)
    with pytest.raises((AssertionError, RunFailed)):
        mutant.detector.check(lab)


def test_no_two_mutants_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
