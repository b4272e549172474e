"""``dpbench evaluate``: samples of runs, and samples that were made elsewhere."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpbench.core.files import sha256
from dpbench.core.progress import Silent
from dpbench.data.catalog import CIFAR10, FASHIONMNIST
from dpbench.data.samples import read_samples
from dpbench.records.run_record import RunRecord, RunSpec
from tests.support.command import Command, Ended

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 1, 16, 16), np.uint8)
LABELS = np.arange(20) % 10
BY_TOY = ("--dataset", "digits", "--profile", "smoke", "--evaluators", "toy")


def save(images: Any = IMAGES, labels: Any = LABELS, file: str | Path = "mine.npz") -> Path:
    np.savez(file, images=images, labels=labels)
    return Path(file)


def save_folder(names: dict[int, str], folder: str = "mine") -> Path:
    """The images as PNG files, in folders called by their labels' names."""
    for number, (image, label) in enumerate(zip(IMAGES[:, 0], LABELS, strict=True)):
        path = Path(folder, names[int(label)], f"{number:02}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return Path(folder)


def scores(name: str = "mine") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("evaluations", f"{name}.json").read_text())
    return content


def one_error(ended: Ended) -> str:
    assert ended.code == 2 and not ended.out
    assert ended.err.startswith("Error: ") and ended.err.count("\n") == 1, ended.err
    return ended.err


# --- what can be given


def test_a_foreign_file_is_scored_and_claims_no_privacy(dpbench: Command, toy: ModuleType) -> None:
    ended = dpbench("evaluate", save(), *BY_TOY)
    assert ended.code == 0
    assert f"{IMAGES.mean():.4g}" in ended.out and "toy_missing" in ended.out
    assert "privacy" in ended.out and "not claimed" in ended.out
    assert "evaluations/mine.json" in ended.out
    content = scores()
    assert content["privacy"] == {"release": "not claimed", "epsilon": None}
    assert content["spec"]["origin"] == "unknown" and content["spec"]["name"] == "mine"
    assert [(m["metric"], m["n"], m["n_real"]) for m in content["measurements"]] == [
        ("toy_mean", 20, 360),
        ("toy_missing", 20, 0),
    ]
    assert content["measurements"][0]["value"] == pytest.approx(IMAGES.mean())
    assert "compare scores of equal n only" in ended.err
    assert dpbench("verify", "evaluations/mine.json").code == 2, "there is no claim to verify"
    assert dpbench("report", "--all").code == 0
    assert "mine (unknown origin)" in Path("leaderboards/digits.csv").read_text()


@pytest.mark.parametrize(
    "images",
    [IMAGES.transpose(0, 2, 3, 1), IMAGES[:, 0], IMAGES.astype(np.int64)],
    ids=["channels last", "no channels", "whole numbers of another type"],
)
def test_every_layout_is_the_same_samples(
    dpbench: Command, toy: ModuleType, images: np.ndarray
) -> None:
    for name, form in (("here", images), ("there", IMAGES)):
        assert dpbench("evaluate", save(form), *BY_TOY, "--name", name).code == 0
    assert scores("here")["spec"]["samples_hash"] == scores("there")["spec"]["samples_hash"]


def test_colours_stay_in_their_places(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (4, 3, 32, 32), np.uint8)
    for form in (images, images.transpose(0, 2, 3, 1)):
        found = read_samples(save(form, LABELS[:4], tmp_path / "mine.npz"), CIFAR10, 100, Silent())
        assert (found.pixels.numpy() == images).all()


@pytest.mark.parametrize("name", ["{}", "0{}"])
def test_a_folder_of_images_is_the_same_samples(
    dpbench: Command, toy: ModuleType, name: str
) -> None:
    folder = save_folder({label: name.format(label) for label in range(10)})
    assert dpbench("evaluate", folder, *BY_TOY, "--json").code == 0
    order = np.argsort(LABELS, kind="stable")  # a folder is read class by class
    ended = dpbench("evaluate", save(IMAGES[order], LABELS[order]), *BY_TOY, "--name", "file")
    assert ended.code == 0
    assert scores()["spec"]["samples_hash"] == scores("file")["spec"]["samples_hash"]


def test_folders_may_be_called_as_the_classes_are(tmp_path: Path) -> None:
    for name in ("T-shirt-top", "Ankle boot"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / name / "0.png")
    assert read_samples(tmp_path, FASHIONMNIST, 100, Silent()).labels.tolist() == [9, 0]


def test_which_label_is_which_class_is_said_and_kept(dpbench: Command, toy: ModuleType) -> None:
    for number in range(24):
        path = Path("twelve", str(number % 12), f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[number % 20, 0]).save(path)
    mine = save(IMAGES[:12], np.arange(12))
    ended = dpbench("evaluate", mine, "--dataset", "imagefolder:twelve", *BY_TOY[2:])
    assert ended.code == 0 and "labels: 0 0, 1 1, 2 2, 3 3" in ended.err
    assert list(scores()["classes"].items())[:3] == [("0", "0"), ("1", "1"), ("2", "2")]
    ended = dpbench("run", "--method", "real", "--dataset", "imagefolder:twelve", *BY_TOY[2:])
    assert ended.code == 0 and "2 2, 3 3" in ended.err, "the plan says it too"
    (record,) = Path("runs").rglob("record.json")
    assert json.loads(record.read_text())["resolved"]["classes"]["11"] == "11"


# --- mistakes


def floats(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, IMAGES.size).reshape(IMAGES.shape)


NAN = np.where(IMAGES == 7, np.nan, IMAGES)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:, :, :8], LABELS, "shape (20, 1, 8, 16); samples of digits have shape (N, 1, 16"),
        (IMAGES.repeat(3, 1), LABELS, "shape (20, 3, 16, 16); samples of digits"),
        (IMAGES[0, 0], LABELS, "has shape (16, 16); samples of digits"),
        (IMAGES[:0], LABELS[:0], "holds no image"),
        (floats(0, 1), LABELS, "0 to 1; expected uint8 in [0, 255]: convert with numpy.round(255"),
        (floats(-1, 1), LABELS, "-1 to 1; expected uint8 in [0, 255]: convert with numpy.round(12"),
        (floats(0, 255), LABELS, "0 to 255; expected uint8 in [0, 255]: convert with numpy.round("),
        (floats(-3, 3), LABELS, "from -3 to 3; expected uint8 in [0, 255]: scale them"),
        (NAN, LABELS, "NaN"),
        (IMAGES > 100, LABELS, "images is bool; expected uint8"),
        (IMAGES.astype(int) + 1, LABELS, "to 256; expected uint8 in [0, 255]"),
        (IMAGES.astype(int) - 1, LABELS, "from -1 to 254; expected uint8 in [0, 255]"),
        (IMAGES // 255, LABELS, "from 0 to 1; expected uint8 in [0, 255]"),
        (IMAGES, LABELS[:19], "labels has shape (19,); expected (20,)"),
        (IMAGES, np.eye(10)[LABELS], "labels has shape (20, 10); expected (20,)"),
        (IMAGES, LABELS + 1, "labels has values from 1 to 10; the classes of digits are 0 to 9"),
        (IMAGES, LABELS - 1, "labels has values from -1 to 8"),
        (IMAGES, LABELS * 1.0, "labels is float64; expected whole numbers"),
        (IMAGES, LABELS.astype(str), "expected whole numbers"),
        (IMAGES, np.array([None] * 20), "holds Python objects"),
    ],
)  # fmt: skip
def test_bad_arrays_are_one_line_and_leave_nothing(
    dpbench: Command, images: Any, labels: Any, message: str
) -> None:
    assert message in one_error(dpbench("evaluate", save(images, labels), "--dataset", "digits"))
    assert not Path("evaluations").exists()


def test_bad_files_are_one_line(dpbench: Command, tmp_path: Path) -> None:
    np.savez("unlabelled.npz", images=IMAGES)
    np.savez("empty.npz")
    np.save("one.npy", IMAGES)
    Path("text.npz").write_text("images")
    Path("cut.npz").write_bytes(save().read_bytes()[:3000])
    for file, message in (
        ("nowhere.npz", "there is no nowhere.npz: give a run's folder, an .npz file, or a folder"),
        ("unlabelled.npz", "it holds images, but no labels"),
        ("empty.npz", "it holds nothing, but no images and no labels"),
        ("one.npy", "is not an .npz file"),
        ("text.npz", "is not an .npz file"),
        ("cut.npz", "is not an .npz file"),
    ):
        assert message in one_error(dpbench("evaluate", file, "--dataset", "digits"))


def test_bad_folders_are_one_line(dpbench: Command, tmp_path: Path) -> None:
    names = {label: str(label) for label in range(10)}
    Path("empty").mkdir()
    save_folder({**names, 3: "cat", 4: "10"}, "strange")
    save_folder(names, "large")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save("large/5/99.png")
    save_folder(names, "text")
    Path("text", "5", "notes.txt").write_text("5")
    for folder, message in (
        ("empty", "empty holds no folder; expected one for each class of digits"),
        ("strange", "strange has 10, cat; expected folders named after the classes of digits"),
        ("large", "28x28 pixels of mode L; expected 16x16 pixels of mode L"),
        ("text", "notes.txt is no image by its name"),
    ):
        ended = dpbench("evaluate", folder, "--dataset", "digits")
        assert ended.code == 2 and message in ended.err.splitlines()[-1], ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say with --dataset what the samples in mine.npz imitate"),
        (("--dataset", "digit"), "Did you mean 'digits'?"),
        (("--dataset", "digits", "--profile", "smok"), "Did you mean 'smoke'?"),
        (("--dataset", "digits", "--seed", "-1"), "--seed must lie in [0, 2^63), got -1"),
        (("--dataset", "digits", "--evaluators", "cass"), "Did you mean 'cas'?"),
        (("--dataset", "digits", "--evaluators", ","), "--evaluators is empty"),
        (("--dataset", "digits", "--evaluators", "cas-predictor"), "looks at classifiers"),
        (("--dataset", "digits", "--device", "abacus"), "no device 'abacus' here"),
        (("--dataset", "digits", "--name", "caf\udce9"), "the samples, 'caf\\udce9', is no UTF-8"),
    ],
)
def test_a_mistake_is_one_line(dpbench: Command, arguments: tuple[str, ...], message: str) -> None:
    assert message in one_error(dpbench("evaluate", save(), *arguments))
    assert not Path("evaluations").exists()


def test_files_that_are_not_these_scores_are_left_alone(dpbench: Command, toy: ModuleType) -> None:
    assert dpbench("evaluate", save(), *BY_TOY).code == 0
    whole = Path("evaluations/mine.json").read_text()
    ended = dpbench("evaluate", save(255 - IMAGES), *BY_TOY)
    assert ended.code == 2 and "(it differs in samples_hash)" in ended.err
    assert Path("evaluations/mine.json").read_text() == whole
    Path("mine.json").write_text('{"a": 1}')
    ended = dpbench("evaluate", save(), *BY_TOY, "--out", "mine.json")
    assert ended.code == 2 and "mine.json holds no scores of samples" in ended.err
    assert Path("mine.json").read_text() == '{"a": 1}'
    edited = whole.replace(
        f'"value": {json.loads(whole)["measurements"][0]["value"]}', '"value": 1.0'
    )
    assert edited != whole
    Path("mine.json").write_text(edited)
    ended = dpbench("evaluate", save(), *BY_TOY, "--out", "mine.json")
    assert ended.code == 2 and "mine.json was edited" in ended.err
    ended = dpbench("evaluate", save(), *BY_TOY, "--out", "evaluations")
    assert ended.code == 2 and "cannot write evaluations" in ended.err


# --- what is measured


def test_what_a_few_images_cannot_give_is_a_reason_and_the_rest_comes(dpbench: Command) -> None:
    """Five images of one class, through all evaluators there are."""
    file = save(IMAGES[:5], np.full(5, 3))
    ended = dpbench("evaluate", file, "--dataset", "digits", "--profile", "smoke", "--json")
    assert ended.code == 0
    rows = {m["metric"]: m for m in json.loads(ended.out)["measurements"]}
    assert all(m["value"] is not None or m["reason"] for m in rows.values())
    assert rows["cas_cnn"]["value"] is not None and rows["train_closer_pixels"]["value"] is not None
    assert "needs more than 64 images" in rows["fd_cnn"]["reason"]
    assert "not the mechanism that made them" in rows["audit_alarms"]["reason"]
    assert "public images" in rows["realism_share"]["reason"]
    assert "cas_predictor" not in rows


def test_an_evaluator_that_fails_is_a_reason_and_the_rest_comes(
    dpbench: Command, toy: ModuleType
) -> None:
    def fail(count: int) -> None:
        raise ValueError("too few\nimages")

    toy.HOOKS["evaluate"] = fail
    ended = dpbench("evaluate", save(), *BY_TOY[:-1], "toy,memorization")
    assert ended.code == 1 and "the same command tries again" in ended.err.splitlines()[-1]
    reasons = {m["metric"]: m["reason"] for m in scores()["measurements"]}
    assert reasons["toy_mean"] == "ValueError: too few images" and reasons["authpct_pixels"] == ""


def test_an_interruption_loses_nothing_that_is_complete(dpbench: Command, toy: ModuleType) -> None:
    command = ("evaluate", save(), *BY_TOY[:-1], "memorization,toy")
    toy.HOOKS["evaluate"] = lambda count: signal.raise_signal(signal.SIGINT)
    ended = dpbench(*command)
    assert ended.code == 130 and "continues where this one stopped" in ended.err
    before = scores()
    assert before["done"] == ["memorization"] and len(before["measurements"]) == 12
    del toy.HOOKS["evaluate"]
    assert dpbench(*command).code == 0
    after = scores()
    assert after["done"] == ["memorization", "toy"]
    assert after["measurements"][:12] == before["measurements"]
    again = "something was measured again"
    assert after["timings"]["memorization"] == before["timings"]["memorization"], again
    ended = dpbench(*command)
    assert ended.code == 0 and "measured already" in ended.err
    assert toy.CALLS["evaluate"] == 2


# --- a run's samples


def test_a_runs_samples_get_the_same_scores_again_and_its_record_stays(dpbench: Command) -> None:
    command = ("run", "--method", "real", "--dataset", "digits", "--profile", "smoke")
    one = ("--evaluators", "memorization")
    assert dpbench(*command, *one, "--seed", "5", "--out", "run").code == 0
    record = Path("run/record.json").read_bytes()
    ended = dpbench("evaluate", "run", *one, "--json", "--out", "again.json")
    assert ended.code == 0 and "equal n" not in ended.err
    again, before = json.loads(ended.out), json.loads(record)
    assert again == json.loads(Path("again.json").read_text())
    assert again["measurements"] == before["measurements"]
    assert again["spec"]["origin"] == before["id"]
    assert Path("run/record.json").read_bytes() == record
    assert sorted(path.name for path in Path().iterdir()) == ["again.json", "run"]


def test_a_run_that_cannot_be_scored_says_why(dpbench: Command) -> None:
    spec = RunSpec(
        method="toy",
        method_version="toy 1.0",
        method_args={},
        dataset="digits",
        dataset_hash="00ff",
        epsilon=1.0,
        delta=1e-5,
        adjacency="add_remove",
        seed=0,
        profile="smoke",
        compute={},
        samples=20,
    )
    Path("run").mkdir()
    file = save(file="run/samples.npz")
    right = {"samples.npz": sha256(file)}

    def ended(artifacts: dict[str, str], *arguments: str, dataset: str = "digits") -> Ended:
        record = RunRecord(replace(spec, dataset=dataset), artifacts=artifacts)
        Path("run/record.json").write_text(record.dumps())
        return dpbench("evaluate", "run", *arguments)

    assert "toy that has drawn no samples" in one_error(ended({}))
    assert "is not what the run drew" in one_error(ended({"samples.npz": "00"}))
    assert "is a run on digits" in one_error(ended(right, "--dataset", "mnist"))
    mine = ended(right, dataset="imagefolder:mine")
    assert "is a run on imagefolder:mine: give --dataset" in one_error(mine)
    other = ended(right)  # after the line that says where the data is from
    assert other.code == 2 and "has other images than the run in run saw" in other.err
    assert not Path("evaluations").exists()
