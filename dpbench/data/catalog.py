"""The data sets by name. Imports no torch, so that listing them is quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is loaded.

    Attributes:
        name: Its CLI name.
        shape: ``(channels, height, width)`` of one image.
        classes: Number of classes.
        class_names: What label ``i`` stands for, at position ``i``.
        train: Number of images of the official train split.
        test: Number of images of the official test split.
        description: One line for people.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    class_names: tuple[str, ...]
    train: int
    test: int
    description: str


_DIGIT_NAMES = tuple("0123456789")

FASHIONMNIST = DatasetInfo(
    name="fashionmnist",
    shape=(1, 28, 28),
    classes=10,
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    train=60_000,
    test=10_000,
    description="Fashion-MNIST: grey pictures of clothes (Xiao et al., 2017)",
)
MNIST = DatasetInfo(
    name="mnist",
    shape=(1, 28, 28),
    classes=10,
    class_names=_DIGIT_NAMES,
    train=60_000,
    test=10_000,
    description="MNIST: handwritten digits (LeCun et al., 1998)",
)
DIGITS = DatasetInfo(
    name="digits",
    shape=(1, 16, 16),
    classes=10,
    class_names=_DIGIT_NAMES,
    train=1_437,
    test=360,
    description="scikit-learn's 8x8 digits, enlarged to 16x16: needs no download; for trying out",
)
CATALOG = {info.name: info for info in (FASHIONMNIST, MNIST, DIGITS)}
