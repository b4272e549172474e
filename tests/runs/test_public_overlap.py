"""Private images among the public ones, and twins of the check that would let them in."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec, content_hash
from dpbench.core.progress import Silent
from dpbench.data.load import load
from dpbench.privacy.mechanisms import PrivateSetInfo
from dpbench.runs import public_overlap
from dpbench.runs.public_images import converted, open_public
from dpbench.runs.public_overlap import check_apart
from tests.support.datasets import encoded, noise, put

SPEC = ImageSpec(1, 16, 16)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return load("digits", None, Silent()).splits.train.pixels


def jpeg(images: Tensor) -> Tensor:
    files = (io.BytesIO(encoded(image[0].numpy(), "JPEG", quality=75)) for image in images)
    return torch.stack([torch.from_numpy(np.array(Image.open(file)))[None] for file in files])


def enlarged(images: Tensor) -> Tensor:
    pictures = (Image.fromarray(image[0].numpy()).resize((40, 40)) for image in images)
    large = torch.stack([torch.from_numpy(np.array(picture))[None] for picture in pictures])
    return converted(large, SPEC)


def refused(public: Tensor, private: Tensor) -> str:
    """The reason why public images are refused, or nothing."""
    try:
        check_apart("other", [public[:50], public[50:]], private)
    except UserError as error:
        return str(error)
    return ""


def one_among_others(private: Tensor) -> Tensor:
    others = torch.from_numpy(noise(1, 300, 1, 16, 16))
    return torch.cat([others[:200], private[700:701], others[200:]])


COPIES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "one image": (one_among_others, "1 of its 301 are train images"),
    "reversed": (lambda x: x.flip(0), "1,437 of its 1,437 are train images"),
    "mirrored": (lambda x: x[:300].flip(3), "300 of its 300 are train images"),
    "as JPEG": (jpeg, "encoded or resized again: of 500 train images"),
    "mirrored as JPEG": (lambda x: jpeg(x.flip(3)), "encoded or resized again"),
    "enlarged": (enlarged, "encoded or resized again"),
    "half as JPEG": (lambda x: torch.cat([jpeg(x[::2]), one_among_others(x)[:200]]), "resized"),
}


@pytest.mark.parametrize(("copied", "message"), COPIES.values(), ids=COPIES)
def test_private_images_among_the_public_ones_are_refused(
    copied: Callable[[Tensor], Tensor], message: str, digits: Tensor
) -> None:
    assert message in refused(copied(digits), digits)


def test_other_images_of_the_same_kind_pass(digits: Tensor) -> None:
    assert not refused(digits[::2], digits[1::2])
    assert not refused(digits[:5], digits[1000:]), "a few images are near others by chance"


def test_images_of_one_intensity_are_nobodys(digits: Tensor) -> None:
    blank = torch.full((3, 1, 16, 16), 7, dtype=torch.uint8)
    assert not refused(torch.cat([blank, digits[::2]]), torch.cat([digits[1::2], blank]))
    assert not refused(blank, blank)


def test_twins_of_the_check_let_private_images_in(
    digits: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What every part of the check is for."""

    def whole_set(public: Tensor) -> bool:
        """The check as it was: one hash of all images in their order."""
        first, second = (Images(x, torch.zeros(len(x)).long()) for x in (public, digits))
        return content_hash(first) == content_hash(second)

    assert whole_set(digits) and not whole_set(digits.flip(0)) and not whole_set(digits[:-1])

    unmirrored = public_overlap._digests
    with monkeypatch.context() as twin:
        twin.setattr(public_overlap, "_digests", lambda images, mirrored=False: unmirrored(images))
        assert not refused(digits[:150].flip(3), digits) and refused(digits[:150], digits)
    with monkeypatch.context() as twin:
        twin.setattr(public_overlap, "NEARER", 0.0)
        assert not refused(jpeg(digits), digits)
    with monkeypatch.context() as twin:
        twin.setattr(public_overlap, "NEARER", 1.0)
        assert refused(digits[::2], digits[1::2]), "every image would be a copy of the nearest"


def test_exported_private_images_are_refused_in_a_run(digits: Tensor, tmp_path: Path) -> None:
    info = PrivateSetInfo("scans", SPEC, 10, 1437)
    private = Images(digits, torch.zeros(len(digits), dtype=torch.int64))
    for number, image in enumerate(digits[:40]):
        folder = tmp_path / "plain" / "ab"[number % 2]
        put(folder / f"{number:05}.png", encoded(image[0].numpy()))
    assert open_public(f"imagefolder:{tmp_path / 'plain'}", info, None, 0, None, Silent())
    with pytest.raises(UserError, match="36 of its 36 are train images of the private set"):
        open_public(f"imagefolder:{tmp_path / 'plain'}", info, private, 0, None, Silent())


def test_folders_of_one_name_are_told_apart_by_their_images(tmp_path: Path) -> None:
    for place, seed in (("cats", 0), ("dogs", 100)):
        for number in range(20):
            pixels = noise(seed + number, 16, 16)
            put(tmp_path / place / "train" / "ab"[number % 2] / f"{number}.png", encoded(pixels))
    private = load(f"imagefolder:{tmp_path / 'cats' / 'train'}", None, Silent())
    info = PrivateSetInfo(private.info.name, SPEC, 2, private.info.train)
    other = f"imagefolder:{tmp_path / 'dogs' / 'train'}"
    source = open_public(other, info, private.splits.train, 0, None, Silent())
    assert source is not None and source.name == info.dataset == "imagefolder:train"
    with pytest.raises(UserError, match="holds private images"):
        open_public(other.replace("dogs", "cats"), info, private.splits.train, 0, None, Silent())
