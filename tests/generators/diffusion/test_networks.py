from __future__ import annotations

import pytest
import torch

from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec
from dpbench.core.streams import initialised
from dpbench.generators.diffusion.networks.ddpm import BY_EMBEDDING, ADMUNet
from dpbench.generators.diffusion.networks.ddpmpp import DDPMPP
from dpbench.generators.diffusion.networks.unet import UNet, UNetSettings
from tests.support.private import rng


def test_the_paper_network_has_the_stated_size_and_keeps_the_image_shape():
    network = DDPMPP(ImageSpec(1, 28, 28), 10, UNetSettings())
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1.75e6, rel=0.02)
    x = torch.zeros(2, 1, 28, 28)
    assert network(x, torch.zeros(2), torch.tensor([0, 10])).shape == x.shape


@pytest.mark.parametrize(
    "spec, settings",
    [
        (ImageSpec(1, 16, 16), UNetSettings(16, (1,), 1, (4,), patch=4)),
        (ImageSpec(3, 32, 32), UNetSettings(16, (1, 2), 1, (8,), patch=2)),
        (ImageSpec(1, 28, 28), UNetSettings(16, (1, 2, 2), 2, (7,))),
    ],
)
def test_examples_do_not_influence_each_other(spec, settings):
    network = initialised(DDPMPP, spec, 10, settings, seed=0)
    for parameter in network.parameters():  # away from the zero output it starts with
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=rng()))
    x = torch.randn(3, *spec.shape, generator=rng())
    levels, labels = torch.tensor([0.1, -0.2, 0.5]), torch.tensor([1, 2, 3])
    together = network(x, levels, labels)
    alone = network(x[1:2], levels[1:2], labels[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)
    assert together.std() > 0.01


def test_labels_and_noise_levels_change_the_output():
    network = initialised(DDPMPP, ImageSpec(1, 8, 8), 10, UNetSettings(16, (1,), 1, ()), seed=0)
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=rng()))
    x = torch.randn(1, 1, 8, 8, generator=rng()).expand(3, -1, -1, -1)
    out = network(x, torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0, 1, 0]))
    assert (out[0] - out[1]).abs().max() > 1e-3
    assert (out[0] - out[2]).abs().max() > 1e-3


def test_a_size_that_cannot_be_halved_is_refused_in_one_line():
    with pytest.raises(UserError, match="cannot be cut"):
        DDPMPP(ImageSpec(1, 28, 28), 10, UNetSettings(channel_mult=(1, 2, 2, 2)))


GREY, COLOUR = ImageSpec(1, 28, 28), ImageSpec(3, 32, 32)


SMALL = UNetSettings(16, (1, 2), 1, (4,), patch=2)


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
        network = BY_EMBEDDING[embedding](spec, 10, settings)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def moved(embedding: str) -> UNet:
    """A small network away from the zero output that it starts with."""
    network = initialised(BY_EMBEDDING[embedding], ImageSpec(1, 8, 8), 10, SMALL, seed=0)
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
    settings = UNetSettings(128, (1,), 1, (), patch=2)
    attention = ADMUNet(ImageSpec(1, 8, 8), 10, settings).middle1.attention
    assert attention.heads == 2
    attention.out.weight.data.copy_(torch.eye(128)[:, :, None, None])
    x = torch.randn(1, 128, 4, 4, generator=rng())
    before = attention(x)
    # queries of the second head are of no concern to the first
    attention.query_key_value.weight.data[64:128].mul_(5)
    change = (attention(x) - before).abs().amax(dim=(0, 2, 3))
    assert change[:64].max() == 0
    assert change[64:].min() > 0
