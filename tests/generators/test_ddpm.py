"""DP fine-tuned DDPM: network, schedule, objective, samplers, and how it fine-tunes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from dpbench.api.method import RunContext
from dpbench.api.profiles import SMOKE
from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.core.progress import Progress, Silent
from dpbench.core.registry import load
from dpbench.core.streams import Streams, initialised
from dpbench.data.catalog import CATALOG
from dpbench.generators.diffusion.ddpm import ALPHA_BAR, DDPM, SIGMA, STEPS
from dpbench.generators.diffusion.ddpm_unet import DDPMLayers
from dpbench.generators.diffusion.denoisers import EVERYWHERE, STATE_OF_CLASSES, Denoiser
from dpbench.generators.diffusion.objective import DenoisingObjective
from dpbench.generators.diffusion.samplers import DiffusionSampler, SamplerSettings
from dpbench.generators.diffusion.unet import UNet, UNetSettings
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.request import private_set_info
from dpbench.training.augmentation import Augmentation

GREY, COLOUR = ImageSpec(1, 28, 28), ImageSpec(3, 32, 32)
SMALL = UNetSettings(16, (1, 2), 1, (4,), patch=2)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The network.


@pytest.mark.parametrize(
    "embedding, spec, settings, millions",
    [
        ("additive", COLOUR, UNetSettings(192, (1, 2, 2, 2), 2, (16,)), 80.4),  # stated
        ("additive", GREY, UNetSettings(64, (1, 2, 2), 1, (16,)), 4.2),  # stated
        ("adaptive", COLOUR, UNetSettings(192, (1, 2, 2, 2), 2, (16,)), 86.15),
        ("adaptive", GREY, UNetSettings(64, (1, 2, 2), 1, (16,)), 4.55),
    ],
)
def test_the_network_has_the_size_that_the_paper_states_for_the_additive_embedding(
    embedding, spec, settings, millions
):
    with torch.device("meta"):
        network = UNet(spec, 10, settings, DDPMLayers(embedding))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def moved(embedding: str) -> UNet:
    """A small network away from the zero output that it starts with."""
    network = initialised(UNet, ImageSpec(1, 8, 8), 10, SMALL, DDPMLayers(embedding), seed=0)
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=rng()))
    return network


@pytest.mark.parametrize("embedding", ["adaptive", "additive"])
def test_steps_and_labels_change_the_output_of_their_own_example_only(embedding):
    network = moved(embedding)
    x = torch.randn(1, 1, 8, 8, generator=rng()).expand(3, -1, -1, -1)
    steps, labels = torch.tensor([10.0, 10.0, 500.0]), torch.tensor([0, 1, 0])
    together = network(x, steps, labels)
    assert together.shape == x.shape
    assert (together[0] - together[1]).abs().max() > 1e-3
    assert (together[0] - together[2]).abs().max() > 1e-3
    alone = network(x[1:2], steps[1:2], labels[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)


def test_without_an_embedding_adaptive_normalisation_is_plain():
    adaptive, additive = moved("adaptive"), moved("additive")
    for network in (adaptive, additive):
        for name, parameter in network.named_parameters():
            if ".embed." in name:
                parameter.data.zero_()
    # apart from the layers of the embedding the two have the same parameters
    additive.load_state_dict(
        {
            name: value if ".embed." not in name else additive.state_dict()[name]
            for name, value in adaptive.state_dict().items()
        }
    )
    x = torch.randn(2, 1, 8, 8, generator=rng())
    inputs = (x, torch.tensor([1.0, 900.0]), torch.tensor([3, 4]))
    assert torch.equal(adaptive(*inputs), additive(*inputs))


def test_heads_attend_by_themselves():
    layers = DDPMLayers()
    attention = layers.block(128, 128, 4, attend=True).attention
    assert attention.heads == 2
    attention.out.weight.data.copy_(torch.eye(128)[:, :, None, None])
    x = torch.randn(1, 128, 4, 4, generator=rng())
    before = attention(x)
    # queries of the second head are of no concern to the first
    attention.query_key_value.weight.data[64:128].mul_(5)
    change = (attention(x) - before).abs().amax(dim=(0, 2, 3))
    assert change[:64].max() == 0
    assert change[64:].min() > 0


# The schedule and its mixture of time steps.

CIFAR = DDPM((0.015, 0.785, 0.2), (0, 30, 600, 1000))


def steps_of(sigma: Tensor) -> Tensor:
    return DDPM().coefficients(sigma)[3].long()


def test_the_schedule_is_that_of_ho_et_al():
    # a linear beta from 1e-4 to 0.02, the product taken one by one
    product = 1.0
    for step in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * step / 999)
    assert ALPHA_BAR[-1].item() == pytest.approx(product, rel=1e-12)
    assert product == pytest.approx(4.0358e-5, rel=1e-4)
    assert ALPHA_BAR[0].item() == pytest.approx(0.9999, rel=1e-12)


def test_every_level_is_taken_for_its_own_time_step():
    assert torch.equal(steps_of(SIGMA.float()), torch.arange(STEPS))
    shape = (4, 250)
    assert torch.equal(steps_of(SIGMA.float().view(shape)), torch.arange(STEPS).view(shape))


def test_noisy_images_have_the_moments_of_the_forward_process():
    copies, step = 20_000, 300
    objective = DenoisingObjective(DDPM((1.0,), (step, step + 1)), copies, 10, 0.0)
    pixels = torch.full((1, 1, 1, 1), 204, dtype=torch.uint8)  # 0.6
    _, noisy, sigma, labels = objective.draw(pixels, torch.tensor([7]), rng())
    assert (labels == 7).all()
    x = noisy * DDPM().coefficients(sigma)[2][:, :, None, None, None]
    alpha_bar = ALPHA_BAR[step].item()
    assert x.mean().item() == pytest.approx(0.6 * math.sqrt(alpha_bar), abs=0.02)
    assert x.var().item() == pytest.approx(1 - alpha_bar, rel=0.03)


def test_the_loss_is_the_squared_error_of_the_noise():
    class Constant(nn.Module):
        def forward(self, x: Tensor, step: Tensor, labels: Tensor) -> Tensor:
            return torch.full_like(x, 0.25)

    objective = DenoisingObjective(DDPM(), 6, 10, 0.0)
    pixels = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8, generator=rng())
    clean, noisy, sigma, labels = objective.draw(pixels, torch.arange(5), rng())
    noise = (noisy - clean) / sigma[:, :, None, None, None]
    loss = objective.loss(Denoiser(Constant(), DDPM()), clean, noisy, sigma, labels)
    expected = (noise - 0.25).square().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-4)


def departure(mixture: DDPM) -> float:
    """The p-value of what a mixture draws against the shares that CIFAR's is stated to have."""
    sigma = mixture.quantile(torch.rand(20_000, generator=rng()), EVERYWHERE)
    found = torch.bincount(
        torch.bucketize(steps_of(sigma), torch.tensor([30, 315, 600, 800]), right=True), minlength=5
    )
    stated = torch.tensor([0.015, 0.785 / 2, 0.785 / 2, 0.1, 0.1], dtype=torch.float64)
    return float(stats.chisquare(found, stated * len(sigma)).pvalue)


def test_time_steps_have_the_shares_of_the_mixture():
    assert departure(CIFAR) > 0.001
    # and uniform ones, or weights that went to the wrong intervals, would be seen
    assert departure(DDPM()) < 1e-9
    assert departure(DDPM((0.2, 0.785, 0.015), (0, 30, 600, 1000))) < 1e-9


def test_every_step_of_the_mixture_is_drawn_and_no_other():
    drawn = steps_of(DDPM((0.5, 0.5), (10, 12, 20)).quantile(torch.linspace(0, 1, 999), EVERYWHERE))
    assert drawn.unique().tolist() == list(range(10, 20))
    assert (drawn < 12).float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_stage_of_noise_levels_is_a_part_of_the_mixture():
    interval = (SIGMA[100].log().item() - 1e-6, SIGMA[200].log().item() + 1e-6)
    drawn = steps_of(CIFAR.quantile(torch.linspace(0, 1, 2000), interval))
    assert (drawn.min(), drawn.max()) == (100, 200)


@pytest.mark.parametrize(
    "weights, breakpoints, message",
    [
        ((0.15, 0.785, 0.2), (0, 30, 60, 1000), "add up to 1"),  # as in the paper's section 5.5
        ((0.5, 0.5), (0, 1000), "one breakpoint more"),
        ((0.5, 0.5), (0, 600, 600), "rise within"),
        ((1.0,), (0, 1001), "rise within"),
        ((1.5, -0.5), (0, 10, 20), "0 or more"),
    ],
)
def test_what_is_no_mixture_is_refused(weights, breakpoints, message):
    with pytest.raises(UserError, match=message):
        DDPM(weights, breakpoints)


# Copies of an image.


def test_every_copy_has_its_own_step_noise_flip_and_crop():
    objective = DenoisingObjective(DDPM(), 200, 10, 0.0, augmentation=Augmentation(True, 2))
    pixels = torch.randint(0, 256, (2, 3, 8, 6), dtype=torch.uint8, generator=rng())
    clean, noisy, sigma, labels = objective.draw(pixels, torch.tensor([3, 4]), rng())
    assert clean.shape == noisy.shape == (2, 200, 3, 8, 6)
    assert labels.tolist() == [[3] * 200, [4] * 200]
    assert len(sigma[0].unique()) > 150
    # of 25 places and two directions, differently for the two images
    assert all(len(copies.flatten(1).unique(dim=0)) > 45 for copies in clean)
    assert not torch.equal(*((copies == copies[0]).flatten(1).all(1) for copies in clean))
    noise = (noisy - clean) / sigma[:, :, None, None, None]
    assert noise[0].flatten(1).std(dim=0).min() > 0.8


@pytest.mark.parametrize("augmentation", [Augmentation(flip=True), Augmentation(crop=2)])
def test_an_augmentation_moves_pixels_and_pads_with_black(augmentation):
    images = torch.zeros(400, 1, 5, 5)
    images[:, 0, 2, 1] = 1.0  # one bright pixel, off the middle
    changed = augmentation(images, rng())
    assert changed.shape == images.shape
    places = (changed[:, 0] == 1.0).nonzero()
    if augmentation.flip:
        assert {tuple(place) for place in places[:, 1:].tolist()} == {(2, 1), (2, 3)}
        assert (places[:, 2] == 1).float().mean().item() == pytest.approx(0.5, abs=0.1)
        assert changed.min() == 0
    else:
        rows, columns = places[:, 1], places[:, 2]
        assert (rows.min(), rows.max()) == (0, 4)
        assert (columns.min(), columns.max()) == (0, 3)  # further left it is cropped away
        assert changed.unique().tolist() == [-1.0, 0.0, 1.0]


# Sampling.


class KnownNoise(nn.Module):
    """The best prediction of the noise in images whose pixels are N(mean, 0.2^2), by label."""

    means = torch.tensor([-0.4, 0.4])
    std = 0.2

    def forward(self, x: Tensor, step: Tensor, labels: Tensor) -> Tensor:
        alpha_bar = ALPHA_BAR[step.long()].float()[:, None, None, None]
        mean = self.means[labels][:, None, None, None]
        variance = alpha_bar * self.std**2 + 1 - alpha_bar
        return (1 - alpha_bar).sqrt() * (x - alpha_bar.sqrt() * mean) / variance


def moments(settings: SamplerSettings) -> list[tuple[float, float]]:
    """Mean and standard deviation of each label's samples."""
    sampler = DiffusionSampler(Denoiser(KnownNoise(), DDPM()), ImageSpec(1, 8, 8), 2, settings)
    images = sampler.sample(torch.arange(200) % 2, rng()).float() / 127.5 - 1
    return [(images[label::2].mean().item(), images[label::2].std().item()) for label in (0, 1)]


@pytest.mark.parametrize(
    "settings",
    [
        SamplerSettings("ddim", 250, DDPM(), clip=True),
        SamplerSettings("ancestral", 1000, DDPM(), clip=True),
    ],
)
def test_both_solvers_draw_the_distribution_whose_noise_is_known(settings):
    for (mean, std), expected in zip(moments(settings), (-0.4, 0.4), strict=True):
        assert mean == pytest.approx(expected, abs=0.02)
        assert std == pytest.approx(0.2, abs=0.02)


def by_the_book(
    predict: Callable[[Tensor, int], Tensor], x: Tensor, noises: list[Tensor]
) -> Tensor:
    """Ho et al. 2020, algorithm 2, with the posterior variance of equation 7."""
    beta = 1 - ALPHA_BAR / torch.cat([torch.ones(1).double(), ALPHA_BAR[:-1]])
    for step in range(STEPS - 1, -1, -1):
        share = beta[step] / (1 - ALPHA_BAR[step]).sqrt()
        x = (x - share * predict(x, step)) / (1 - beta[step]).sqrt()
        if step:
            before = 1 - ALPHA_BAR[step - 1]
            x = x + (before / (1 - ALPHA_BAR[step]) * beta[step]).sqrt() * noises.pop(0)
    return x


def test_ancestral_sampling_is_the_algorithm_of_ho_et_al():
    network, label = KnownNoise(), torch.tensor([1])

    def predict(x: Tensor, step: int) -> Tensor:
        return network(x.float(), torch.tensor([step]), label).double()

    settings = SamplerSettings("ancestral", STEPS, DDPM())
    sampler = DiffusionSampler(Denoiser(network, DDPM()), ImageSpec(1, 4, 4), 2, settings)
    drawn = sampler._draw(label, rng(5))
    again = rng(5)
    start, *noises = [torch.randn(1, 1, 4, 4, generator=again).double() for _ in range(STEPS)]
    # ours starts from sigma_T noise, which is x_T up to a factor of 1.00002
    expected = by_the_book(predict, start * (1 - ALPHA_BAR[-1]).sqrt(), noises)
    torch.testing.assert_close(drawn.double(), expected, atol=1e-3, rtol=0)


def test_denoised_images_are_clipped_on_the_way():
    class Wild(nn.Module):
        def forward(self, x: Tensor, step: Tensor, labels: Tensor) -> Tensor:
            return -x

    def largest(clip: bool) -> float:
        settings = SamplerSettings("ddim", 10, DDPM(), clip=clip)
        sampler = DiffusionSampler(Denoiser(Wild(), DDPM()), ImageSpec(1, 4, 4), 2, settings)
        return sampler._draw(torch.tensor([0]), rng()).abs().max().item()

    assert largest(clip=True) <= 1
    assert largest(clip=False) > 1


def test_sampling_steps_are_spread_over_the_whole_schedule():
    levels = SamplerSettings("ddim", 25, DDPM()).noise_levels()
    places = steps_of(torch.tensor(levels))
    assert places[0] == STEPS - 1 and places[-1] == 0
    assert (places[:-1] - places[1:]).unique().numel() <= 2
    assert len(SamplerSettings("ddim", STEPS, DDPM()).noise_levels()) == STEPS
    with pytest.raises(UserError, match="has 1000 time steps"):
        SamplerSettings("ddim", STEPS + 1, DDPM())


# Public training.


INFO = private_set_info(CATALOG["digits"])


@dataclass(frozen=True)
class Greys:
    """Public images whose brightness is their label."""

    classes: int | None
    name: str = "greys"
    identity: str = "0" * 64

    def images(self, count: int, progress: Progress) -> Images:
        labels = torch.arange(count) % 3
        pixels = (100 * labels)[:, None, None, None].expand(-1, *INFO.spec.shape)
        return Images(pixels.to(torch.uint8), labels)


def pretrained(public: Greys | None, folder: Path, *settings: str) -> Denoiser:
    assignments = ("public=greys", *settings)
    method = resolve(load("method", "dp-ddpm"), "dp-ddpm", "smoke", "digits", 1.0, assignments)
    run = RunContext(
        *(SMOKE, torch.device("cpu"), Streams(1), Silent(), folder), public=public, cache=folder
    )
    return method.method.pretrain(INFO, run)


def weights(denoiser: Denoiser) -> dict[str, Tensor]:
    return dict(denoiser.named_parameters())


def test_classes_are_embedded_anew_where_public_ones_are_others(tmp_path):
    other, unlabelled, same = (
        pretrained(Greys(classes=count), tmp_path, "centre_learning_rate=0.01")
        for count in (3, None, 10)
    )
    kept = torch.load(next((tmp_path / "pretrained").glob("*.pt")), weights_only=True)
    assert kept.keys() == weights(same).keys()
    of_classes = [name for name in weights(same) if name.startswith(STATE_OF_CLASSES)]
    assert of_classes == ["network.embedding.label.weight", "centres.images.weight"]
    files = [torch.load(file, weights_only=True) for file in (tmp_path / "pretrained").glob("*.pt")]
    for name in of_classes:
        states = [weights(each)[name] for each in (other, unlabelled, same)]
        assert len({len(state) for state in states}) == 1
        assert torch.equal(states[0], states[1])  # the first weights of this run's seed
        assert not torch.equal(states[0], states[2])
    (learned,) = (each for each in files if len(each[of_classes[0]]) == 3)
    for name, weight in weights(other).items():
        assert name in of_classes or torch.equal(weight, learned[name])
    assert len(files) == 3  # what labels mean is a part of the recipe


def test_labels_that_mean_nothing_are_drawn_anew(tmp_path):
    """Greys would otherwise teach the network what it must not know."""
    meant, unmeant = (
        weights(pretrained(Greys(classes), tmp_path / str(classes))) for classes in (10, None)
    )
    assert any(not torch.equal(meant[name], unmeant[name]) for name in meant)


@pytest.mark.parametrize(
    ("setting", "trained_again"),
    [("steps=7", False), ("clipping_norm=2", False), ("public_steps=5", True), ("patch=2", True)],
)
def test_public_training_is_shared_by_runs_that_differ_in_private_training_only(
    tmp_path, setting, trained_again
):
    pretrained(Greys(10), tmp_path)
    pretrained(Greys(10), tmp_path, setting)
    assert len(list((tmp_path / "pretrained").glob("*.pt"))) == 1 + trained_again


def test_without_its_public_images_it_says_how_to_go_on(tmp_path):
    with pytest.raises(UserError, match="--set public=none trains from scratch"):
        pretrained(None, tmp_path)


def test_two_runs_start_from_the_same_public_weights(dpbench, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    common = ("--method", "dp-ddpm", "--dataset", "digits", "--profile", "smoke")
    common = (*common, "--public", "salt-and-pepper")
    assert dpbench("pretrain", *common).code == 0
    records = []
    for seed in (0, 1):
        ended = dpbench("run", *common, "--seed", seed, "--runs-dir", tmp_path, "--json")
        assert ended.code == 0, ended.err
        records.append(json.loads(ended.out))
    first, second = (record["resolved"]["pretrained"] for record in records)
    assert first == second and first["reused"]
    assert records[0]["spec"]["public"].startswith("salt-and-pepper@")
    refused = dpbench("run", *common[:-1], "digits", "--runs-dir", tmp_path)
    assert refused.code == 2 and "cannot be its own public source" in refused.err
