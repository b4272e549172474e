from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from dpbench.bench.workloads import chosen, random_images
from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.generators.diffusion.denoisers import EDM, Centres, Denoiser
from dpbench.generators.diffusion.objective import DenoisingObjective
from dpbench.generators.diffusion.unet import UNet, UNetSettings
from dpbench.privacy import dpsgd, draws
from dpbench.privacy.clipping import ENGINES, Objective, Predict, clip_factors, engine, selection
from dpbench.privacy.clipping.selection import choose
from dpbench.privacy.clipping.vmap import clipped_sum
from dpbench.privacy.draws import drawn_copies
from dpbench.privacy.events import DPSGDEvent
from tests.support import broken
from tests.support.private import (
    HUGE,
    POISON,
    Copies,
    Engine,
    Gradients,
    NoisyRegression,
    Regression,
    Steps,
    convolutions,
    copy_gradients,
    flat,
    perceptron,
    randomised,
    rng,
    shortened,
    some_images,
    with_pixel,
)

EXAMPLES = 5
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    model: nn.Module
    objective: Objective
    copies: Copies

    @cached_property
    def gradients(self) -> Tensor:
        """By a loop of autograd, the mean over the copies of each example: ``(B, D)``."""
        return copy_gradients(self.model, self.objective, self.copies).mean(dim=1)

    @property
    def median_norm(self) -> float:
        """A clipping norm that shortens some of the gradients and leaves others alone."""
        return float(self.gradients.norm(dim=1).nanmedian())


class ManyLayers(nn.Module):
    """Every kind of layer that the folded engine knows, each in an unusual form."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False)
        self.ghost = nn.Conv2d(8, 40, (1, 2), padding=(0, 1))
        self.narrow = nn.Conv2d(40, 6, 1)
        self.norm = nn.GroupNorm(3, 6)
        self.positions = nn.Linear(6, 5)
        self.layer_norm = nn.LayerNorm(5)
        self.lookup = nn.Embedding(4, 5, padding_idx=2)
        self.last = nn.Linear(5, 1, bias=False)
        randomised(self, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.two(torch.tanh(self.one(x))))
        h = F.silu(self.norm(self.narrow(torch.relu_(self.ghost(h)))))
        h = self.layer_norm(self.positions(h.flatten(2).mT))
        words = (x.flatten(1)[:, :6] * 7).long().remainder(4)
        return self.last(h * self.lookup(words)).mean(dim=(1, 2))


def case(network: str, multiplicity: int, images: Images | None = None) -> Case:
    images = images or some_images(EXAMPLES)
    if network in ("unet", "centred unet"):
        settings, spec = UNetSettings(8, (1,), 1, (), 2), ImageSpec(1, 4, 4)
        unet = randomised(UNet(spec, EXAMPLES, settings), 0.2)
        centres = None
        if network == "centred unet":
            centres = randomised(Centres(spec, EXAMPLES, widths=True), 0.02)
        model: nn.Module = Denoiser(unet, EDM(), centres=centres)
        objective: Objective = DenoisingObjective(EDM(), multiplicity, EXAMPLES, 0.1)
    elif network == "many layers":
        model, objective = ManyLayers(), Regression(multiplicity)
    else:
        model = {"perceptron": perceptron, "convolutions": convolutions}[network]()
        objective = Regression(multiplicity)
    return Case(model, objective, objective.draw(images.pixels, images.labels, rng()))


def assert_close(got: Tensor, expected: Tensor) -> None:
    assert float((got - expected).norm()) <= 1e-5 * float(expected.norm())


def check_against_autograd(engine: Engine, case: Case) -> None:
    for clipping_norm in (case.median_norm, 0.03 * case.median_norm, 1e3 * case.median_norm):
        got = flat(engine(case.model, case.objective, case.copies, clipping_norm))
        assert_close(got, shortened(case.gradients, clipping_norm).sum(dim=0))


def check_additive(engine: Engine, case: Case) -> None:
    """A batch gives the sum of what its parts give, the ragged last one included."""
    clipping_norm = case.median_norm
    whole = flat(engine(case.model, case.objective, case.copies, clipping_norm))
    for size in (1, 2):
        parts = zip(*(torch.split(part, size) for part in case.copies), strict=True)
        sums = [flat(engine(case.model, case.objective, part, clipping_norm)) for part in parts]
        assert_close(torch.stack(sums).sum(0), whole)


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
    check_against_autograd(engine(name), case(network, multiplicity))
    check_additive(engine(name), case(network, multiplicity))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("multiplicity", [1, 8])
@pytest.mark.parametrize("network", ["unet-laptop", "unet-paper", "unet-cifar10", "cnn"])
def test_engines_agree_with_autograd_on_the_networks_of_the_project(
    network: str, multiplicity: int
) -> None:
    (load,) = chosen([network])
    model, objective = load.build(multiplicity, "float32")
    with torch.no_grad():
        for parameter in model.parameters():  # some start at zero and stop all gradients
            parameter.add_(torch.randn(parameter.shape, generator=rng()), alpha=0.05)
    images, batch = random_images(load, 5), torch.arange(5)
    gradients = Case(model, objective, drawn_copies(objective, images, batch, rng, CPU)(0, 5))
    # a norm over a million values in one float32 sum is itself off by more than 1e-5
    expected = shortened(gradients.gradients.double(), gradients.median_norm).sum(dim=0).float()
    for name in ENGINES:
        # physical batches of 2, 2 and 1
        total = dpsgd.gradient_sum(
            *(model, objective, images, batch, gradients.median_norm, rng),
            clipped=engine(name),
            size=2,
        )
        assert_close(flat(total), expected)


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


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("network, multiplicity", [("perceptron", 8), ("unet", 2)])
def test_in_every_engine_one_example_moves_the_sum_by_no_more_than_the_clipping_norm(
    name: str, network: str, multiplicity: int
) -> None:
    check_neighbouring_copies(engine(name), network, multiplicity)


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


@dataclass(frozen=True)
class MixesExamples(Regression):
    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        losses = super().loss(predict, *copies)
        return losses * losses.mean()


@dataclass(frozen=True)
class ExamplesOutermost(Regression):
    """Gives the network its rows in another order than ``as_rows``."""

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        x, target = copies
        return (predict(x.flatten(0, 1)).view_as(target) - target).square().mean(dim=1)


@pytest.mark.parametrize("objective", [MixesExamples(2), ExamplesOutermost(2)])
def test_an_engine_is_held_against_autograd_before_it_is_used(objective: Objective) -> None:
    spec = ImageSpec(1, 4, 4)
    assert choose(perceptron(), Regression(2), spec, "folded").engine == "folded"
    with pytest.raises(UserError, match="disagree on"):
        choose(perceptron(), objective, spec, "folded")
    assert choose(perceptron(), objective, spec, "auto").engine in ("vmap", "loop")


def test_auto_takes_an_engine_that_can_do_the_model() -> None:
    assert choose(convolutions(), Regression(2), ImageSpec(1, 4, 4), "auto").engine != "folded"


def test_what_was_timed_once_is_chosen_again(tmp_path: Path) -> None:
    cache = tmp_path / "engines.json"
    first = choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "auto", cache)
    for _ in range(3):
        assert choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "auto", cache) == first
    cache.write_text("{")
    assert choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "loop", cache).engine == "loop"


def test_physical_batches_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def size(memory: float) -> int:
        monkeypatch.setattr(selection, "_memory", lambda device: memory)
        return choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "vmap").physical_batch

    assert size(1e12) == selection.CPU_COPIES // 2
    assert 1 < size(1e5) < selection.CPU_COPIES // 2
    assert size(1.0) == 1


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
    with pytest.raises(AssertionError):
        check_against_autograd(twin, case("convolutions", 8))


@pytest.mark.parametrize("twin", [broken.clipping.clips_the_batch, broken.clipping.averages])
def test_splitting_a_batch_catches(twin: Engine) -> None:
    with pytest.raises(AssertionError):
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


def check_physical_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "COPIES_DRAWN_TOGETHER", 24)
    images, batch = some_images(40), torch.arange(1, 38)
    sums = []
    for copies_at_once in (2, 10, 64, 1000):
        monkeypatch.setattr(dpsgd, "PHYSICAL_COPIES", copies_at_once)
        total = dpsgd.gradient_sum(perceptron(), NoisyRegression(2), images, batch, 0.5, rng)
        sums.append(flat(total))
    for other in sums[1:]:
        assert_close(other, sums[0])


def test_the_physical_batch_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    check_physical_batches(monkeypatch)


@pytest.mark.parametrize(
    "name, twin",
    [
        ("clipped_sum", broken.clipping.averages),
        ("clipped_sum", broken.clipping.clips_the_batch),
        ("gradient_sum", broken.clipping.drops_the_ragged_batch),
        ("drawn_copies", broken.clipping.draws_one_after_another),
    ],
)
def test_changing_the_physical_batch_size_catches(
    name: str, twin: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpsgd, name, twin)
    with pytest.raises(AssertionError):
        check_physical_batches(monkeypatch)


def test_the_draws_of_a_place_depend_on_nothing_but_the_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draws, "COPIES_DRAWN_TOGETHER", 16)
    images, device = some_images(60), torch.device("cpu")

    def drawn(batch: Tensor) -> Callable[[int, int], Copies]:
        return draws.drawn_copies(NoisyRegression(2), images, batch, rng, device)

    batch = torch.arange(3, 53)
    whole = drawn(batch)(0, 50)
    assert [part.shape[:2] for part in whole] == [(50, 2), (50, 2)]
    for first, last in ((0, 1), (0, 8), (7, 9), (3, 33), (48, 50), (49, 50), (8, 16)):
        for shorter in (batch, batch[:last]):
            for part, expected in zip(drawn(shorter)(first, last), whole, strict=True):
                assert torch.equal(part, expected[first:last])
    part = images[batch]
    clean, _ = Regression(2).draw(part.pixels, part.labels, rng())
    noise = (whole[0] - clean).flatten(1)
    assert torch.pdist(noise).min() > 0.1, "two places have the same draws"


# Neighbours.


def assert_within(first: Gradients, second: Gradients, bound: float) -> None:
    """The inequality that a differential privacy claim rests on; NaN does not satisfy it."""
    distance = float((flat(first) - flat(second)).norm())
    assert distance <= bound * (1 + 1e-5)


def check_neighbouring_copies(engine: Engine, network: str, multiplicity: int) -> None:
    """Leave out each example of a batch in turn: the others keep the copies that were drawn."""
    noisy = 1 if network == "unet" else 0
    for bad in (None, torch.nan, 1e25):
        given = case(network, multiplicity)
        count = len(given.copies[0])
        if bad is not None:
            given.copies[noisy][2, 0, 0, 1, 1] = bad
        clipping_norm = 0.5 * given.median_norm
        everyone = engine(given.model, given.objective, given.copies, clipping_norm)
        for left_out in range(count):
            rest = torch.arange(count) != left_out
            copies = tuple(part[rest] for part in given.copies)
            without = engine(given.model, given.objective, copies, clipping_norm)
            assert_within(everyone, without, clipping_norm)


@pytest.mark.parametrize("network, multiplicity", [("perceptron", 8), ("unet", 2)])
def test_one_example_moves_the_sum_by_no_more_than_the_clipping_norm(
    network: str, multiplicity: int
) -> None:
    check_neighbouring_copies(clipped_sum, network, multiplicity)


@pytest.mark.parametrize(
    "twin",
    [
        broken.clipping.never_clips,
        broken.clipping.clips_each_copy_without_mean,
        broken.clipping.clips_the_batch,
        broken.clipping.clips_each_tensor,
        broken.clipping.lets_nan_through,
        broken.clipping.takes_norms_in_bfloat16,
    ],
)
def test_leaving_one_example_out_catches(twin: Engine) -> None:
    with pytest.raises(AssertionError):
        check_neighbouring_copies(twin, "perceptron", 8)


NEIGHBOURS: dict[str, Callable[[Images], Images]] = {
    "one more": lambda images: with_pixel(images, 100),
    "one less": lambda images: images[:-1],
    "one with NaN more": lambda images: with_pixel(images, POISON),
    "one beyond float range more": lambda images: with_pixel(images, HUGE),
}


def check_neighbouring_releases(change: Callable[[Images], Images]) -> float:
    """Replay training without noise on a neighbour: same weights, same draws for everybody else.

    Returns the largest difference, so that a neighbour that changes nothing is noticed.

    The images differ at the end, so nobody else's place in the sampler moves. The public size is
    far from the true one, and half of the images are in each batch.
    """
    images = some_images(30)
    steps = Steps(
        randomised(perceptron(), 1.0),
        NoisyRegression(2),
        DPSGDEvent(0.5, 0.0, 0.3, 6, "weights"),
        nominal_size=2000,
    )
    ours, theirs = steps(images), steps(change(images))
    assert len(ours) == len(theirs) == 6
    for mine, other in zip(ours, theirs, strict=True):
        assert_within(mine, other, 0.3)
    return max(float((flat(a) - flat(b)).norm()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_a_neighbour_moves_each_release_by_no_more_than_the_clipping_norm(neighbour: str) -> None:
    moved = check_neighbouring_releases(NEIGHBOURS[neighbour])
    finite = neighbour in ("one more", "one less")
    assert moved == pytest.approx(0.3 if finite else 0, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    "name, twin, neighbour",
    [
        ("clipped_sum", broken.clipping.never_clips, "one more"),
        ("clipped_sum", broken.clipping.lets_nan_through, "one with NaN more"),
        ("clipped_sum", broken.clipping.lets_nan_through, "one beyond float range more"),
        ("clipped_sum", broken.clipping.clips_each_copy_without_mean, "one more"),
        ("gradient_sum", broken.clipping.divides_by_the_realised_batch, "one less"),
        ("poisson_sample", broken.sampling.shuffles, "one less"),
        ("drawn_copies", broken.clipping.draws_one_after_another, "one more"),
    ],
)
def test_replaying_a_neighbour_catches(
    name: str, twin: object, neighbour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpsgd, name, twin)
    with pytest.raises(AssertionError):
        check_neighbouring_releases(NEIGHBOURS[neighbour])


def test_clipping_shortens_long_vectors_and_drops_those_without_a_length() -> None:
    norms = torch.tensor([0.0, 1e-20, 0.5, 1.0, 4.0, 1e30, torch.inf, torch.nan])
    factors = clip_factors(norms, 1.0)
    expected = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.25, 1e-30, 0.0, 0.0])
    torch.testing.assert_close(factors, expected, rtol=1e-5, atol=0)
    assert (factors[norms.isfinite()] * norms[norms.isfinite()] <= 1).all()
