from __future__ import annotations

import torch

from dpbench.core.images import ImageSpec
from dpbench.core.streams import initialised
from dpbench.generators.diffusion.denoiser import Denoiser
from dpbench.generators.diffusion.loss import DenoisingObjective
from dpbench.generators.diffusion.networks.ddpmpp import DDPMPP
from dpbench.generators.diffusion.networks.unet import UNetSettings
from dpbench.generators.diffusion.preconditioning import EDM
from dpbench.generators.diffusion.training import set_gradients
from tests.support.private import rng


def test_gradients_in_pieces_are_those_of_the_whole_batch():
    network = initialised(DDPMPP, ImageSpec(1, 8, 8), 3, UNetSettings(16, (1,), 1, ()), seed=0)
    denoiser = Denoiser(network, EDM())
    objective = DenoisingObjective(EDM(), 2, 3, 0.1)
    pixels = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8, generator=rng())
    copies = objective.draw(pixels, torch.arange(7) % 3, rng())
    objective.loss(denoiser, *copies).mean().backward()
    expected = [p.grad.clone() for p in denoiser.parameters()]
    set_gradients(denoiser, objective, copies)
    for parameter, gradient in zip(denoiser.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)
