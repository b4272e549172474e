from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dpbench.generators.diffusion.denoiser import Denoiser
from dpbench.generators.diffusion.loss import DenoisingObjective
from dpbench.generators.diffusion.preconditioning import ALPHA_BAR, DDPM, EDM
from dpbench.privacy.clipping import as_rows
from dpbench.training.augmentation import Augmentation
from tests.support.private import rng


def test_labels_are_dropped_once_for_all_copies_at_the_stated_rate():
    objective = DenoisingObjective(EDM(), multiplicity=4, null_label=10, label_dropout=0.1)
    pixels = torch.zeros(5000, 1, 2, 2, dtype=torch.uint8)
    _, _, _, labels = objective.draw(pixels, torch.zeros(5000, dtype=torch.int64), rng())
    assert (labels == labels[:, :1]).all()
    assert (labels[:, 0] == 10).float().mean().item() == pytest.approx(0.1, abs=0.015)


def test_a_perfect_denoiser_has_no_loss_and_an_imperfect_one_has():
    objective = DenoisingObjective(EDM(), 3, 10, 0.0)
    pixels = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=rng())
    copies = objective.draw(pixels, torch.zeros(4, dtype=torch.int64), rng())
    clean = as_rows(copies[0])
    assert objective.loss(lambda *_: clean, *copies).max() == 0
    assert objective.loss(lambda x, *_: x, *copies).min() > 0


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
