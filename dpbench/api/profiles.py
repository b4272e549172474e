"""Profiles: how much work a run may do. A profile is a column of every leaderboard row."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ComputeBudget:
    """What every method of a profile may spend on training.

    A gradient evaluation is one image (one noised or augmented copy of it) through forward and
    backward. Plans over the limits are refused before training. Time cannot be known before, and
    must not end private training early (the number of steps would depend on the machine), so
    ``train_seconds`` is compared with the estimate, warned of, and recorded.

    Attributes:
        private_evaluations: On private images, expected over Poisson sampling.
        public_evaluations: On public or programmatic images.
        train_seconds: On the reference machine of the profile; ``inf`` for no limit.
    """

    private_evaluations: int
    public_evaluations: int
    train_seconds: float


@dataclass(frozen=True)
class Profile:
    """A size of run.

    Attributes:
        name: Its CLI name.
        compute: What training may cost.
        samples: Number of synthetic images drawn and scored.
        description: One line for people.
        presets: Name of the profile whose presets its runs start from; ``""`` for its own.
    """

    name: str
    compute: ComputeBudget
    samples: int
    description: str
    presets: str = ""


SMOKE = Profile(
    name="smoke",
    compute=ComputeBudget(private_evaluations=8_000, public_evaluations=8_000, train_seconds=30),
    samples=200,
    description="does it run at all: under a minute on the digits; its scores mean nothing",
)
CLAIMS = Profile(
    name="claims",
    compute=ComputeBudget(private_evaluations=40_960, public_evaluations=12_800, train_seconds=90),
    samples=2500,
    description="two CPU cores, at most 3 minutes a run: many seeds and small differences",
    presets="laptop",  # made smaller by the settings of each claim's runs
)
LAPTOP = Profile(
    name="laptop",
    compute=ComputeBudget(
        private_evaluations=250_000, public_evaluations=250_000, train_seconds=15 * 60
    ),
    samples=10_000,
    description="two CPU cores, at most 20 minutes a run",
)
PAPER = Profile(
    name="paper",
    compute=ComputeBudget(
        # the largest of the papers' configurations: Ghalebikesabi et al. 2023 on MNIST at epsilon
        # 32, 12,800 steps of 4096 images with 128 copies each
        private_evaluations=12_800 * 4096 * 128,
        public_evaluations=1_000_000_000,
        train_seconds=math.inf,
    ),
    samples=60_000,
    description="the papers' own configurations; needs GPUs",
)
PROFILES = {profile.name: profile for profile in (SMOKE, CLAIMS, LAPTOP, PAPER)}
