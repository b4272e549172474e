"""Broken ways to share a training step out over ranks."""

from __future__ import annotations

from torch import Tensor, nn

from dpbench.core.images import Images
from dpbench.core.streams import Streams
from dpbench.parallel.ranks import Ranks
from dpbench.privacy.clipping import Objective
from dpbench.privacy.dpsgd import gaussian_noise, gradient_sum
from dpbench.privacy.draws import Draws
from tests.support.private import KEY, Gradients
from tests.support.ranks import here


def _share(batch: Tensor, ranks: Ranks) -> Tensor:
    share = ranks.share(len(batch))
    return batch[share.start : share.stop]


def keeps_its_share(
    m: nn.Module, o: Objective, i: Images, batch: Tensor, c: float, draws: Draws, ranks: Ranks
) -> Gradients:
    return gradient_sum(m, o, i, _share(batch, ranks), c, draws)


def draws_alike_on_every_rank(
    m: nn.Module, o: Objective, i: Images, batch: Tensor, c: float, draws: Draws, ranks: Ranks
) -> Gradients:
    total = gradient_sum(m, o, i, _share(batch, ranks), c, draws)
    ranks.add_up(list(total.values()))
    return total


def samples_on_every_rank(
    m: nn.Module, o: Objective, i: Images, batch: Tensor, c: float, draws: Draws, ranks: Ranks
) -> Gradients:
    """A batch for each rank, each of the whole sample rate."""
    own = ((batch + ranks.rank) % len(i)).sort().values
    total = gradient_sum(m, o, i, own, c, draws)
    ranks.add_up(list(total.values()))
    return total


def divides_by_its_share(
    m: nn.Module, o: Objective, i: Images, batch: Tensor, c: float, draws: Draws, ranks: Ranks
) -> Gradients:
    # the loop divides by the expected batch, 20 here: taken back
    total = gradient_sum(m, o, i, batch, c, draws, ranks)
    count = max(1, len(ranks.share(len(batch)))) * ranks.size
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
