"""The discrete cosine transform, as a matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct


def cosines(side: int) -> NDArray[np.float32]:
    """The orthonormal transform of vectors, ``(side, side)``, float32, with a wave in each row."""
    waves = dct(np.eye(side, dtype=np.float32), axis=0, norm="ortho")
    return np.asarray(waves, dtype=np.float32)
