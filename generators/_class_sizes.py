"""Noisy sizes of the classes, which turn released sums into means."""

from __future__ import annotations

import math

from torch import Tensor

from dpbench.privacy.events import HistogramEvent
from dpbench.privacy.mechanisms import PrivateImages

# Share of the class sizes in inverse squares of noise multipliers: a few images of noise on each.
SIZES_SHARE = 0.02


def sizes_event(whole: float) -> HistogramEvent:
    """The release of the sizes, as a part of a budget.

    A histogram's noise is in images, and replacing one moves it by less than a sum: it is cheaper.

    Args:
        whole: Noise multiplier of a sum that would spend the whole budget.
    """
    return HistogramEvent(whole / math.sqrt(SIZES_SHARE), "class sizes")


def class_sizes(private: PrivateImages, event: HistogramEvent) -> Tensor:
    """Spend ``event`` and release the sizes, ``(classes,)``, float64, in images.

    A class that the noise makes all but empty counts as a tenth of an equal share.
    """
    least = private.info.nominal_size / private.info.classes / 10
    return private.label_histogram(event).clamp(min=least)
