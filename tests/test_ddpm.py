"""DP fine-tuned DDPM: network, schedule, objective, samplers, and how it fine-tunes."""

from __future__ import annotations

import pytest
import torch

from dpbench.generators.diffusion.ddpm_unet import DDPMLayers
from dpbench.generators.diffusion.training import initialised
from dpbench.generators.diffusion.unet import UNet, UNetSettings
from dpbench.types import ImageSpec

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
