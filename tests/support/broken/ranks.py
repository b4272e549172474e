"""Broken ways to share a training step out over ranks."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dpbench.core.images import Images
from dpbench.core.streams import Streams
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.privacy.clipping import Objective
from dpbench.privacy.dpsgd import gaussian_noise, gradient_sum
from tests.support.private import KEY, Gradients
from tests.support.ranks import here


def _share(batch: Tensor, ranks: Ranks) -> Tensor:
    share = ranks.share(len(batch))
    return batch[share.start : share.stop]


def _alone(
    m: nn.Module, o: Objective, images: Images, batch: Tensor, *how: Any, **named: Any
) -> Gradients:
    """The sum of one process over ``batch``, whatever the ranks that were named."""
    how = tuple(ALONE if isinstance(each, Ranks) else each for each in how)
    named = {key: ALONE if isinstance(each, Ranks) else each for key, each in named.items()}
    return gradient_sum(m, o, images, batch, *how, **named)


def keeps_its_share(
    m: nn.Module, o: Objective, images: Images, batch: Tensor, *how: Any, **named: Any
) -> Gradients:
    return _alone(m, o, images, _share(batch, here()), *how, **named)


def draws_alike_on_every_rank(
    m: nn.Module, o: Objective, images: Images, batch: Tensor, *how: Any, **named: Any
) -> Gradients:
    total = _alone(m, o, images, _share(batch, here()), *how, **named)
    here().add_up(list(total.values()))
    return total


def samples_on_every_rank(
    m: nn.Module, o: Objective, images: Images, batch: Tensor, *how: Any, **named: Any
) -> Gradients:
    """A batch for each rank, each of the whole sample rate."""
    own = ((batch + here().rank) % len(images)).sort().values
    total = _alone(m, o, images, own, *how, **named)
    here().add_up(list(total.values()))
    return total


def divides_by_its_share(
    m: nn.Module, o: Objective, images: Images, batch: Tensor, *how: Any, **named: Any
) -> Gradients:
    # the loop divides by the expected batch, 20 here: taken back
    total = gradient_sum(m, o, images, batch, *how, **named)
    count = max(1, len(here().share(len(batch)))) * here().size
    return {name: part * 20 / count for name, part in total.items()}


def of_every_rank(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
    """Each rank's noise, added up: the scale is wrong."""
    drawn = gaussian_noise(like, streams, purpose, step)
    here().add_up(list(drawn.values()))
    return drawn


def of_its_own(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
    """From a key of each rank: the scale is right, but ranks can take their mean."""
    return gaussian_noise(like, Streams(0, bytes([here().rank]) + KEY[1:]), purpose, step)


def of_its_own_added_up(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
    """From a key of each rank, added up: as many times the variance as there are ranks."""
    drawn = of_its_own(like, streams, purpose, step)
    here().add_up(list(drawn.values()))
    return drawn
