"""Contract tests: what holds for every registered method, and what the stated presets are."""

from __future__ import annotations

import functools
import math
import re

import pytest
import torch

from dpbench.api.method import RunContext, Sampler
from dpbench.api.profiles import PROFILES, SMOKE
from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.core.registry import entries, load
from dpbench.core.streams import Streams, reproducible_key
from dpbench.data.catalog import CATALOG
from dpbench.data.load import load as load_dataset
from dpbench.generators.diffusion.model import DiffusionModel
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages
from dpbench.runs.fitted import stored
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.public_images import open_public
from dpbench.runs.request import RunRequest, plan, private_set_info
from tests.support import golden
from tests.support.fitting import INFO, budget_of, fitted, outcome, survivor

METHODS = sorted(entries("method"))


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """Fit a method by name, once for all tests of this module."""

    def fit(name: str):
        return fitted(name, tmp_path_factory.mktemp(name))

    once = functools.cache(fit)
    # "real" deals images out: what it draws depends on what was drawn before
    return lambda name: fit(name) if name == "real" else once(name)


@pytest.mark.parametrize("name", METHODS)
def test_samples_or_predictions_have_the_shape_and_type_that_is_promised(name, fits):
    _, learnt, _ = fits(name)
    given = outcome(learnt)
    if not isinstance(learnt, Sampler):
        assert (given.shape, given.dtype) == ((20, INFO.classes), torch.float32)
    else:
        assert (given.shape, given.dtype) == ((20, *INFO.spec.shape), torch.uint8)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_spends_exactly_what_it_planned_within_its_budget(name, fits):
    method, _, ledger = fits(name)
    assert ledger.events == method.plan(INFO, ledger.budget).events
    certificate = ledger.certificate(reproducible=True)
    assert certificate["epsilon"] <= ledger.budget.epsilon
    if ledger.budget.private:
        assert ledger.events
        assert certificate["epsilon"] > 0.99 * ledger.budget.epsilon


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_reproducible_from_its_streams(name, fits, tmp_path):
    _, first, _ = fits(name)
    _, second, _ = fitted(name, tmp_path)
    assert torch.equal(outcome(first), outcome(second))


@pytest.mark.parametrize("name", METHODS)
def test_a_sampler_or_predictor_survives_being_stored(name, fits):
    method, learnt, _ = fits(name)
    again = survivor(method, learnt)
    assert stored(again) == stored(learnt)
    assert torch.equal(outcome(again), outcome(learnt))


@pytest.mark.parametrize("name", golden.ours("method"))
def test_results_move_with_the_version_alone(name, fits):
    _, learnt, _ = fits(name)
    assert not golden.verdict("method", name, golden.digest_of_method(learnt))


@pytest.mark.parametrize("name", golden.ours("source"))
def test_public_images_move_with_the_version_alone(name):
    assert not golden.verdict("source", name, golden.digest_of_source(name))


def test_results_that_move_without_a_new_version_are_caught(tmp_path, monkeypatch):
    original = torch.optim.Adam.step

    def slower(self, closure=None):
        for group in self.param_groups:
            group["lr"] /= 2
        original(self, closure)
        for group in self.param_groups:
            group["lr"] *= 2

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", slower)
        _, learnt, _ = fitted("dpdm", tmp_path)
    moved = golden.digest_of_method(learnt)
    assert "moved" in golden.verdict("method", "dpdm", moved)
    monkeypatch.setattr(load("method", "dpdm"), "version", 2)
    assert "has version 2" in golden.verdict("method", "dpdm", moved)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("profile", sorted(set(PROFILES) - {"claims"}))  # see tests of claims
def test_presets_fit_the_compute_budget_of_their_profile(name, profile):
    kind = load("method", name)
    budget = budget_of(kind)
    dataset = "digits" if profile == "smoke" else "fashionmnist"
    method = resolve(kind, name, profile, dataset, budget.epsilon, ()).method
    plan = method.plan(private_set_info(CATALOG[dataset]), budget)
    assert plan.evaluations(private=True) <= PROFILES[profile].compute.private_evaluations
    assert plan.evaluations(private=False) <= PROFILES[profile].compute.public_evaluations


@pytest.mark.parametrize("name", METHODS)
def test_profile_claims_by_hand_works_or_is_refused_in_one_line(name):
    try:
        planned = plan(RunRequest(name, "fashionmnist", math.inf, profile="claims"))
    except UserError as error:
        assert re.search("profile claims( allows|: there are)", str(error)), error
        assert "\n" not in str(error)
    else:
        assert planned.resolved.source


def paper(name: str, dataset: str, epsilon: float):
    kind = load("method", name)
    return resolve(kind, name, "paper", dataset, epsilon, ()).method


@pytest.mark.parametrize("dataset", ["mnist", "fashionmnist"])
@pytest.mark.parametrize("epsilon, parameterization", [(0.2, "v"), (1.0, "edm"), (10.0, "edm")])
def test_dpdm_paper_presets_hold_the_papers_values(dataset, epsilon, parameterization):
    method = paper("dpdm", dataset, epsilon)
    assert method.parameterization == parameterization
    assert (method.batch_size, method.multiplicity, method.learning_rate) == (4096, 32, 3e-4)
    assert (method.clipping_norm, method.average_decay, method.label_dropout) == (1.0, 0.999, 0.1)
    assert method.steps == round(300 * 60_000 / 4096)
    assert (method.solver, method.sampling_steps, method.churn) == ("heun", 1000, 10.0)
    plan = method.plan(private_set_info(CATALOG[dataset]), PrivacyBudget(epsilon))
    (event,) = plan.events
    assert isinstance(event, DPSGDEvent)
    assert event.sample_rate == pytest.approx(4096 / 60_000)
    assert plan.parameters == pytest.approx(1.75e6, rel=0.02)
    assert plan.evaluations(private=True) == 4395 * 4096 * 32


def test_dpdm_churns_below_the_papers_noise_levels():
    settings = {
        (dataset, epsilon): paper("dpdm", dataset, epsilon).churn_min
        for dataset in ("mnist", "fashionmnist")
        for epsilon in (1.0, 10.0)
    }
    assert settings == {
        ("mnist", 1.0): 0.1,
        ("mnist", 10.0): 0.025,
        ("fashionmnist", 1.0): 0.025,
        ("fashionmnist", 10.0): 0.1,
    }


@pytest.mark.parametrize("name", ["dpsyngen", "dpsyngen-coarse", "dpsyngen-cleaning"])
def test_dpsyngen_paper_presets_hold_the_papers_values(name):
    method = paper(name, "fashionmnist", 1.0)
    assert (method.batch_size, method.multiplicity, method.learning_rate) == (4096, 8, 3e-4)
    assert method.steps == round(200 * 60_000 / 4096)
    assert (method.synthetic, method.synthetic_labels) == ("dead-leaves", "random")
    assert (method.synthetic_batch_size, method.synthetic_multiplicity) == (128, 4)
    assert method.synthetic_learning_rate == 4e-4
    assert method.synthetic_steps == 300 * method.synthetic_images / 128


def test_the_stages_of_dpsyngen_are_the_released_ones():
    assert paper("dpsyngen-coarse", "mnist", 1.0).tau2 == 2.0
    assert paper("dpsyngen-cleaning", "mnist", 1.0).tau1 == -3.0
    assert paper("dpsyngen", "mnist", 1.0).pretrain_above == -3.0


def test_a_staged_variant_never_trains_its_public_stage_on_private_images(monkeypatch, tmp_path):
    """Both stages of the coarse variant, public training first."""
    intervals, original = [], DiffusionModel.objective

    def objective(self, classes, multiplicity, interval):
        intervals.append(interval)
        return original(self, classes, multiplicity, interval)

    monkeypatch.setattr(DiffusionModel, "objective", objective)
    fitted("dpsyngen-coarse", tmp_path)
    assert intervals == [(2.0, math.inf), (-math.inf, 2.0)]


@pytest.mark.parametrize(
    ("name", "setting", "trained_again"),
    [
        ("dpsyngen", "steps=7", False),
        ("dpsyngen", "clipping_norm=2", False),
        ("dpsyngen", "synthetic_steps=5", True),
        ("dpsyngen", "label_dropout=0.2", True),
        ("dpsyngen", "centre_learning_rate=0.01", True),
        ("dpsyngen", "centre_learning_rate=0.01 centre_widths=True", True),
        ("dpsyngen", "pretrain_above=0", True),
        ("dpsyngen-coarse", "tau2=0", True),
        ("dpsyngen-cleaning", "tau1=0", True),
        ("dpsyngen-cleaning", "experts=False", False),
        ("dpsyngen", "version", True),
    ],
)
def test_public_weights_are_shared_by_runs_of_syngen_that_differ_in_private_training_only(
    monkeypatch, tmp_path, name, setting, trained_again
):
    kind = load("method", name)
    seed = 0
    for settings in ([], setting.split()):
        if settings == ["version"]:
            monkeypatch.setattr(kind, "version", kind.version + 1)
            settings = []
        few = ("synthetic_images=32", "synthetic_steps=2")
        method = resolve(kind, name, "smoke", "digits", 1.0, (*few, *settings)).method
        public = open_public(method.synthetic, INFO, None, seed, None, Silent())
        run = RunContext(
            profile=SMOKE,
            device=torch.device("cpu"),
            streams=Streams(seed),
            progress=Silent(),
            folder=tmp_path,
            public=public,
            cache=tmp_path,
        )
        method.pretrain(INFO, run)
    assert len(list((tmp_path / "pretrained").glob("*.pt"))) == 1 + trained_again


def test_class_means_are_the_means_where_the_noise_is_small(tmp_path):
    train = load_dataset("digits", None, Silent()).splits.train
    kind = load("method", "class-mean")
    streams = Streams(0)
    ledger = PrivacyLedger(PrivacyBudget(1000.0))
    private = PrivateImages(train, INFO, ledger, Streams(0, reproducible_key(0)))
    run = RunContext(SMOKE, torch.device("cpu"), streams, Silent(), tmp_path)
    # no image is longer than 16, so nothing is clipped; the noise has a mean size of about 2
    sampler = kind(clipping_norm=16.0).fit(private, run)
    means = sampler.sample(torch.arange(10), torch.Generator()).float()
    for label in range(10):
        own = train.pixels[train.labels == label].float()
        # the divisor is the public class size, not the true one
        expected = own.sum(0) / (INFO.nominal_size / 10)
        assert (means[label] - expected.clamp(0, 255)).abs().mean() < 3


def test_real_deals_every_image_once_before_any_again(tmp_path):
    train = load_dataset("digits", None, Silent()).splits.train
    _, sampler, _ = fitted("real", tmp_path)
    zeros = int((train.labels == 0).sum())
    drawn = torch.cat(
        [
            sampler.sample(torch.zeros(n, dtype=torch.int64), torch.Generator())
            for n in (7, zeros - 7)
        ]
    )
    expected = train.pixels[train.labels == 0].flatten(1).tolist()
    assert sorted(drawn.flatten(1).tolist()) == sorted(expected)


@pytest.mark.parametrize(
    "settings, message",
    [
        (("steps=0",), "steps must be at least 1"),
        (("learning_rate=-1",), "learning_rate must be above 0"),
        (("clipping_norm=inf",), "clipping_norm must be above 0 and finite"),
        (("label_dropout=2",), "label_dropout must lie in"),
        (("channels=7",), "channels must be a multiple of 4"),
        (("channel_mult=",), "channel_mult must be one factor or more"),
        (("synthetic_batch_size=0",), "synthetic_batch_size must be at least 1"),
        (("parameterization=vp",), "unknown parameterization"),
        (("synthetic=clouds",), "Unknown source 'clouds'"),
        (("synthetic=dead-leaves", "synthetic_labels=recipe"), "no classes of their own"),
        (("sampling_steps=1",), "at least 2 steps"),
        (("guidance=1", "label_dropout=0"), "guidance needs images without label"),
        (("centre_widths=True", "centre_learning_rate=0"), "centre_widths needs centres"),
    ],
)
def test_a_hyper_parameter_out_of_range_is_refused_in_one_line(settings, message):
    with pytest.raises(UserError, match=message) as raised:
        resolve(load("method", "dpsyngen"), "dpsyngen", "laptop", "fashionmnist", 1.0, settings)
    assert "\n" not in str(raised.value)
