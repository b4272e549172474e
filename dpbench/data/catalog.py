"""The catalog of data sets; importing it imports no torch, so that listing them is quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """Properties of a data set that are known before it is loaded.

    Attributes:
        name: CLI name.
        shape: ``(channels, height, width)`` of one image.
        classes: Number of classes.
        class_names: Name of class ``i`` at position ``i``.
        train: Number of images of the official train split.
        test: Number of images of the official test split.
        description: One-line description.
        validation: Number of images of the official validation split; 0 if there is none.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    class_names: tuple[str, ...]
    train: int
    test: int
    description: str
    validation: int = 0

    @property
    def labels(self) -> dict[str, str]:
        """Name of each class by its label, as records keep it."""
        return {str(label): name for label, name in enumerate(self.class_names)}

    @property
    def labels_in_words(self) -> str:
        """Which label stands for which class, of the first and last few classes."""
        words = [f"{label} {name}" for label, name in self.labels.items()]
        return ", ".join(words if len(words) <= 12 else [*words[:10], "...", words[-1]])


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
CIFAR10 = DatasetInfo(
    name="cifar10",
    shape=(3, 32, 32),
    classes=10,
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    train=50_000,
    test=10_000,
    description="CIFAR-10: small photographs of objects and animals (Krizhevsky, 2009)",
)
CELEBA = DatasetInfo(
    name="celeba",
    shape=(3, 32, 32),
    classes=2,
    class_names=("female", "male"),
    train=162_770,
    validation=19_867,
    test=19_962,
    description="CelebA at 32x32: faces of celebrities, by the attribute Male (Liu et al., 2015)",
)
CAMELYON17 = DatasetInfo(
    name="camelyon17",
    shape=(3, 32, 32),
    classes=2,
    class_names=("normal", "tumor"),
    train=302_436,
    validation=34_904,
    test=85_054,
    description="Camelyon17-WILDS at 32x32: lymph nodes, test on a new hospital (Koh et al., 2021)",
)
IMAGENET32 = DatasetInfo(
    name="imagenet32",
    shape=(3, 32, 32),
    classes=1_000,
    class_names=tuple(map(str, range(1, 1_001))),  # the files have numbers only
    train=1_281_167,
    test=50_000,
    description="ImageNet at 32x32, tested on its validation images (Chrabaszcz et al., 2017)",
)
CATALOG = {
    info.name: info
    for info in (FASHIONMNIST, MNIST, CIFAR10, CELEBA, CAMELYON17, IMAGENET32, DIGITS)
}
