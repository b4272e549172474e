"""Engines against plain autograd, on the networks of the project and on models made for it."""

from __future__ import annotations

import functools
import re

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from dpbench.bench.workloads import chosen, random_images
from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec
from dpbench.generators.diffusion.denoiser import Denoiser
from dpbench.generators.diffusion.preconditioning import EDM
from dpbench.privacy import dpsgd
from dpbench.privacy.clipping import ENGINES, clip_factors, engine
from dpbench.privacy.clipping.selection import choose
from dpbench.privacy.clipping.vmap import clipped_sum
from dpbench.privacy.draws import drawn_copies
from tests.support import broken
from tests.support.checks import Detected
from tests.support.checks.clipping import (
    EXAMPLES,
    Case,
    case,
    check_against_autograd,
    expect_equal,
)
from tests.support.private import (
    Engine,
    Regression,
    convolutions,
    flat,
    randomised,
    rng,
    shortened,
)

CPU = torch.device("cpu")
# reads a case only, so all engines share its reference
shared_case = functools.cache(case)


def check_additive(engine: Engine, case: Case) -> None:
    """A batch gives the sum of what its parts give, the ragged last one included."""
    clipping_norm = case.median_norm
    whole = flat(engine(case.model, case.objective, case.copies, clipping_norm))
    for size in (1, 2):
        parts = zip(*(torch.split(part, size) for part in case.copies), strict=True)
        sums = [flat(engine(case.model, case.objective, part, clipping_norm)) for part in parts]
        expect_equal(torch.stack(sums).sum(0), whole, "parts of a batch add up to the whole")


@pytest.mark.filterwarnings("ignore:Full backward hook")  # how Opacus hooks
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("multiplicity", [1, 8])
@pytest.mark.parametrize(
    "network", ["perceptron", "convolutions", "unet", "centred unet", "many layers"]
)
def test_an_engine_gives_what_a_loop_of_autograd_gives(
    name: str, network: str, multiplicity: int
) -> None:
    if (name, network) == ("folded", "convolutions"):
        pytest.skip("uses a weight twice: refused, see below")
    if (name, network) == ("opacus", "many layers"):
        pytest.skip("Opacus' hooks forbid changes in place")
    given = shared_case(network, multiplicity)
    check_against_autograd(engine(name), given)
    check_additive(engine(name), given)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("multiplicity", [1, 3])
@pytest.mark.parametrize("network", ["unet-laptop", "unet-paper", "unet-cifar10", "cnn"])
def test_engines_agree_with_autograd_on_the_networks_of_the_project(
    network: str, multiplicity: int
) -> None:
    (load,) = chosen([network])
    model, objective = load.build(multiplicity, "float32")
    with torch.no_grad():
        for parameter in model.parameters():  # some start at zero and stop all gradients
            parameter.add_(torch.randn(parameter.shape, generator=rng()), alpha=0.05)
    images, batch = random_images(load, 3), torch.arange(3)
    gradients = Case(model, objective, drawn_copies(objective, images, batch, rng, CPU)(0, 3))
    # a norm over a million values in one float32 sum is itself off by more than 1e-5
    expected = shortened(gradients.gradients.double(), gradients.median_norm).sum(dim=0).float()
    for name in ENGINES:
        # physical batches of 2 and 1
        total = dpsgd.gradient_sum(
            model,
            objective,
            images,
            batch,
            clipping_norm=gradients.median_norm,
            draws=rng,
            clipped=engine(name),
            size=2,
        )
        expect_equal(flat(total), expected, "the engine gives autograd's sum")


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1) * self.scale


class Places(nn.Module):
    """Looks up one row for each place, whatever the number of examples."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.table(torch.arange(16)).squeeze(1)


class ChangesItsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1).clone()
        result = self.layer(x)
        x.mul_(2)
        return result.squeeze(1)


@pytest.mark.parametrize(
    "model, named",
    [
        (convolutions(), "'3.weight' twice"),
        (Scaled(), "'mul', which 'scale' is used in"),
        (Places(), "but the layer of 'table.weight' got 16"),
        (ChangesItsInput(), "change in place of what went into 'layer.weight'"),
    ],
)
def test_the_folded_engine_says_which_parameter_it_cannot_follow(
    model: nn.Module, named: str
) -> None:
    given = case("perceptron", 2)
    with pytest.raises(UserError, match=re.escape(named)):
        engine("folded")(model, given.objective, given.copies, 1.0)


class Tempered(nn.Module):
    """A linear layer with a learnt temperature, a parameter without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 1)
        self.temperature = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.temperature * self.layer(x.flatten(1))
        return result


class Keywords(nn.Module):
    """Normalisations whose arguments are all named."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 8)
        self.group, self.norm, self.last = nn.GroupNorm(2, 8), nn.LayerNorm(8), nn.Linear(8, 1)
        randomised(self, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x.flatten(1))
        group, norm = self.group, self.norm
        h = F.group_norm(input=h, num_groups=2, weight=group.weight, bias=group.bias)
        h = F.layer_norm(input=h, normalized_shape=[8], weight=norm.weight, bias=norm.bias)
        result: Tensor = self.last(h)
        return result


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("name", ["vmap", "loop", "opacus"])
def test_parameters_without_dimensions_are_trained(name: str) -> None:
    given = case("perceptron", 2)
    check_against_autograd(engine(name), Case(Tempered(), given.objective, given.copies))


def test_but_refused_in_one_line_by_the_folded_engine() -> None:
    with pytest.raises(UserError, match="cannot train this model: ") as refusal:
        choose(Tempered(), Regression(2), ImageSpec(1, 4, 4), "folded")
    assert "\n" not in str(refusal.value)
    assert choose(Tempered(), Regression(2), ImageSpec(1, 4, 4), "auto").engine in ("vmap", "loop")


@pytest.mark.parametrize("name", ["folded", "vmap", "loop"])
def test_normalisations_may_be_called_by_keyword(name: str) -> None:
    given = case("perceptron", 2)
    check_against_autograd(engine(name), Case(Keywords(), given.objective, given.copies))


@pytest.mark.parametrize("name", ["folded", "vmap", "loop"])
@pytest.mark.parametrize("multiplicity", [1, 2])
def test_in_bfloat16_norms_and_sums_are_single_precision(name: str, multiplicity: int) -> None:
    check_lower_precision(engine(name), multiplicity)


@pytest.mark.parametrize(
    "twin",
    [
        broken.clipping.takes_norms_in_bfloat16,
        broken.clipping.rounds_sums_to_bfloat16,
        broken.clipping.never_clips,
    ],
)
def test_lower_precision_catches(twin: Engine) -> None:
    with pytest.raises(AssertionError):
        check_lower_precision(twin, 2)


def check_lower_precision(engine: Engine, multiplicity: int) -> None:
    """Norms and sums are single precision where the network computes in bfloat16."""
    given = case("unet", multiplicity)
    assert isinstance(given.model, Denoiser)
    lower = Denoiser(given.model.network, EDM(), "bfloat16")
    bound = 0.01 * given.median_norm
    for i in range(EXAMPLES):
        one = engine(lower, given.objective, tuple(c[i : i + 1] for c in given.copies), bound)
        assert {part.dtype for part in one.values()} == {torch.float32}
        assert float(flat(one).norm()) == pytest.approx(bound, rel=1e-5)
    got = flat(engine(lower, given.objective, given.copies, bound))
    expected = shortened(given.gradients, bound).sum(dim=0)
    distance = float((got - expected).norm() / expected.norm())
    assert 1e-5 < distance < 0.1  # it was lower precision, and the gradient is right


@pytest.mark.parametrize(
    "twin",
    [
        broken.clipping.clips_each_copy,
        broken.clipping.clips_each_copy_without_mean,
        broken.clipping.clips_the_batch,
        broken.clipping.clips_each_tensor,
        broken.clipping.never_clips,
        broken.clipping.averages,
        broken.clipping.takes_norms_in_bfloat16,
    ],
)
def test_comparing_with_autograd_catches(twin: Engine) -> None:
    with pytest.raises(Detected):
        check_against_autograd(twin, shared_case("convolutions", 8))


@pytest.mark.parametrize("twin", [broken.clipping.clips_the_batch, broken.clipping.averages])
def test_splitting_a_batch_catches(twin: Engine) -> None:
    with pytest.raises(Detected):
        check_additive(twin, case("perceptron", 8))


def test_weights_that_are_not_trained_get_no_gradient_and_do_not_count_in_the_norm() -> None:
    frozen = case("perceptron", 1)
    next(frozen.model.parameters()).requires_grad_(False)
    sums = clipped_sum(frozen.model, frozen.objective, frozen.copies, frozen.median_norm)
    assert set(sums) == {"1.bias", "3.weight", "3.bias"}
    check_against_autograd(clipped_sum, frozen)


def test_sums_of_a_half_precision_network_are_clipped_and_added_in_single_precision() -> None:
    half = case("perceptron", 1)
    half.model.to(torch.bfloat16)
    copies = tuple(part.bfloat16() for part in half.copies)
    for i in range(EXAMPLES):
        one = clipped_sum(half.model, half.objective, tuple(c[i : i + 1] for c in copies), 1e-2)
        assert {part.dtype for part in one.values()} == {torch.float32}
        assert float(flat(one).norm()) == pytest.approx(1e-2, rel=2e-4)
        assert float(flat(one).norm()) <= 1e-2 * (1 + 1e-5)


def test_clipping_shortens_long_vectors_and_drops_those_without_a_length() -> None:
    norms = torch.tensor([0.0, 1e-20, 0.5, 1.0, 4.0, 1e30, torch.inf, torch.nan])
    factors = clip_factors(norms, 1.0)
    expected = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.25, 1e-30, 0.0, 0.0])
    torch.testing.assert_close(factors, expected, rtol=1e-5, atol=0)
    assert (factors[norms.isfinite()] * norms[norms.isfinite()] <= 1).all()
