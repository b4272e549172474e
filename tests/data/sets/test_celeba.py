from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data import catalog
from dpbench.data.arrays import mapped
from dpbench.data.sets import celeba
from tests.support.datasets import decoded, edit, encoded, noise, put

CELEBA_INFO = replace(catalog.CELEBA, train=3, validation=1, test=2)
FACES = [f"{number:06}.jpg" for number in range(1, 7)]
PARTITIONS = (0, 1, 0, 2, 2, 0)
MALE = (1, -1, -1, 1, -1, 1)
ATTRIBUTE_NAMES = ("5_o_Clock_Shadow", "Male", "Young")


def write_celeba(folder: Path, zipped: bool = False) -> dict[str, bytes]:
    faces = {
        name: encoded(noise(number, 218, 178, 3), "JPEG", quality=95)
        for number, name in enumerate(FACES)
    }
    folder.mkdir(parents=True, exist_ok=True)
    if zipped:
        with zipfile.ZipFile(folder / celeba.ZIP, "w") as content:
            for name, face in faces.items():
                content.writestr(f"{celeba.IMAGES}/{name}", face)
    else:
        for name, face in faces.items():
            put(folder / celeba.IMAGES / name, face)
    # the official list pads its columns by spaces
    rows = [f"{name} -1 {male:2}  1" for name, male in zip(FACES, MALE, strict=True)]
    head = [str(len(FACES)), " ".join(ATTRIBUTE_NAMES) + " "]
    (folder / celeba.ATTRIBUTES).write_text("\n".join([*head, *rows]) + "\n")
    lines = [f"{name} {split}" for name, split in zip(FACES, PARTITIONS, strict=True)]
    (folder / celeba.PARTITION).write_text("\n".join(lines) + "\n")
    return faces


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", [".", "celeba", "CelebA"])
def test_celeba_is_labelled_by_gender_in_its_official_splits(
    root: Path, below: str, zipped: bool
) -> None:
    write_celeba(root / below, zipped)
    splits = decoded(celeba.find(root, Silent(), CELEBA_INFO))
    assert splits["train"].labels.tolist() == [1, 0, 1]
    assert splits["validation"].labels.tolist() == [0]
    assert splits["test"].labels.tolist() == [1, 0]
    assert CELEBA_INFO.class_names == ("female", "male")


def test_celeba_is_cropped_to_its_centre_and_resized(root: Path) -> None:
    faces = write_celeba(root)
    train = decoded(celeba.find(root, Silent(), CELEBA_INFO))["train"]
    for position, name in enumerate(["000001.jpg", "000003.jpg", "000006.jpg"]):
        whole = np.asarray(Image.open(io.BytesIO(faces[name])))
        centre = Image.fromarray(whole[20:198])  # as dataset_tool.py does: (218 - 178) // 2
        small = np.asarray(centre.resize((32, 32), Image.Resampling.LANCZOS))
        assert np.array_equal(train.pixels[position].permute(1, 2, 0), small)


def test_celeba_has_the_same_content_zipped_or_not(tmp_path: Path) -> None:
    hashes = set()
    for zipped in (False, True):
        write_celeba(tmp_path / str(zipped), zipped)
        original = celeba.find(tmp_path / str(zipped), Silent(), CELEBA_INFO)
        hashes.add(mapped(original, Silent()).content_hash)
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: edit(f / celeba.ATTRIBUTES, "Male", "Mal"), "has no attribute Male"),
        (
            lambda f: edit(f / celeba.ATTRIBUTES, "000003.jpg -1 -1", "000003.jpg -1 0"),
            "line 5, is '000003.jpg -1 0  1'; expected an image and 3 attributes of -1 or 1",
        ),
        (lambda f: edit(f / celeba.ATTRIBUTES, "000003.jpg -1", "000003.jpg"), "line 5, is"),
        (lambda f: edit(f / celeba.PARTITION, "2.jpg 1", "2.jpg 3"), "line 2, .* 0, 1 or 2"),
        (lambda f: edit(f / celeba.PARTITION, "000002", "../002"), "line 2, is '../002.jpg 1'"),
        (lambda f: edit(f / celeba.PARTITION, "000002", "000009"), "names 000009.jpg, which"),
        (lambda f: (f / celeba.PARTITION).unlink(), "list_eval_partition.txt cannot be read"),
        (
            lambda f: edit(f / celeba.PARTITION, "000004.jpg 2", "000004.jpg 0"),
            "more than 3 train images",
        ),
        (lambda f: (f / celeba.IMAGES / FACES[3]).unlink(), "000004.jpg cannot be read"),
        (
            lambda f: put(f / celeba.IMAGES / FACES[2], b"\xff\xd8 no image"),
            "000003.jpg cannot be decoded",
        ),
        (
            lambda f: put(
                f / celeba.IMAGES / FACES[2],
                (f / celeba.IMAGES / FACES[2]).read_bytes()[:-900],
            ),
            "000003.jpg cannot be decoded .*truncated.*expected an intact JPEG",
        ),
        (
            lambda f: put(f / celeba.IMAGES / FACES[2], encoded(noise(0, 178, 218, 3), "JPEG")),
            "000003.jpg has 218x178 pixels of mode RGB; expected 178x218",
        ),
        (
            lambda f: put(f / celeba.IMAGES / FACES[2], encoded(noise(0, 218, 178), "JPEG")),
            "000003.jpg has 178x218 pixels of mode L; expected .* mode RGB",
        ),
    ],
)
def test_bad_files_of_celeba_are_named(
    spoil: Callable[[Path], object], message: str, root: Path
) -> None:
    write_celeba(root)
    spoil(root)
    with pytest.raises(UserError, match=message) as error:
        mapped(celeba.find(root, Silent(), CELEBA_INFO), Silent())
    assert "\n" not in str(error.value)


def test_a_small_zip_entry_cannot_ask_for_much_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_celeba(root, zipped=True)
    monkeypatch.setattr(celeba, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="000001.jpg unpacks to more than 1,000 bytes"):
        mapped(celeba.find(root, Silent(), CELEBA_INFO), Silent())


def test_bad_zip_files_of_celeba_are_named(root: Path) -> None:
    write_celeba(root, zipped=True)
    whole = (root / celeba.ZIP).read_bytes()
    put(root / celeba.ZIP, whole[:-100])
    with pytest.raises(UserError, match="img_align_celeba.zip is no intact zip file"):
        mapped(celeba.find(root, Silent(), CELEBA_INFO), Silent())
    flipped = bytearray(whole)
    flipped[2_000] ^= 1
    put(root / celeba.ZIP, flipped)
    with pytest.raises(UserError, match="img_align_celeba.zip is no intact zip file"):
        mapped(celeba.find(root, Silent(), CELEBA_INFO), Silent())
    with zipfile.ZipFile(root / celeba.ZIP, "w") as content:
        content.writestr("other", b"")
    with pytest.raises(UserError, match="no item named 'img_align_celeba/000001.jpg'"):
        mapped(celeba.find(root, Silent(), CELEBA_INFO), Silent())
