"""The key, the journal and the stages of a run belong together, or nothing more is released."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpbench.core.errors import RunFailed
from dpbench.core.progress import Silent
from dpbench.core.seals import sealed
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.records.run_record import read_record
from dpbench.runs import execute, folder, steps
from dpbench.runs.training_folder import (
    BEGUN,
    JOURNAL,
    KEY,
    TRAINING,
    check_begun,
    kept_key,
    open_training,
)
from dpbench.training.loop import Stage
from tests.support import broken
from tests.support.checks.runs import noise_by_step
from tests.support.command import TOY, Command, interrupted_at_step, one_error

HERE = (*TOY, "--out", "here")
TRAINED = Path("here", TRAINING)
STAGE = "training.stage"


def flipped(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def linked(path: Path) -> None:
    """Put a link to a copy in the place of a file or folder."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def write(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda training: (training / name).write_bytes(content)


def of_another_run(training: Path) -> None:
    content = (training / STAGE).read_bytes()[65:]
    (training / STAGE).write_bytes(sealed(content, "the fingerprint of another key"))


def remove(*names: str) -> Callable[[Path], Any]:
    return lambda training: [(training / name).unlink() for name in names]


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no key": (remove(KEY), f"{KEY} is not there"),
    "empty key": (write(KEY, b""), f"{KEY} is damaged: it has not 32 bytes"),
    "short key": (write(KEY, bytes(31)), f"{KEY} is damaged: it has not 32 bytes"),
    "long key": (write(KEY, bytes(10**6)), f"{KEY} is damaged: it has not 32 bytes"),
    "another key": (write(KEY, bytes(32)), f"{KEY} is not the key that this run began with"),
    "a bit of the key": (lambda folder: flipped(folder / KEY, 7), "is not the key"),
    "linked key": (lambda folder: linked(folder / KEY), f"{KEY} is a link"),
    "key for all": (lambda folder: (folder / KEY).chmod(0o644), f"{KEY} belongs to others or is"),
    "folder for all": (lambda folder: folder.chmod(0o755), f"{TRAINING} belongs to others or is"),
    "linked folder": (linked, f"{TRAINING} is a link"),
    "no journal": (remove(JOURNAL), f"{JOURNAL} is not there"),
    "no key, no journal": (remove(KEY, JOURNAL), f"{KEY} is not there"),
    "no folder": (shutil.rmtree, f"{KEY} is not there"),
    "journal of garbage": (write(JOURNAL, b"\xff\x00"), f"{JOURNAL} is not a journal"),
    "deep journal": (write(JOURNAL, b"[" * 100_000), f"{JOURNAL} is not a journal"),
    "stage of garbage": (write(STAGE, b"garbage"), f"{STAGE} is damaged"),
    "empty stage": (write(STAGE, b""), f"{STAGE} is damaged"),
    "another's stage": (of_another_run, f"{STAGE} is damaged, or of another run"),
    "a bit of the stage": (lambda folder: flipped(folder / STAGE, 500), f"{STAGE} is damaged"),
}


@pytest.fixture
def interrupted(dpbench: Command, toy: ModuleType) -> Path:
    """A run that was interrupted in training, to be copied."""
    interrupted_at_step(dpbench, toy, HERE, 3)
    return Path("here").rename("kept")


def reopened(training: Path) -> None:
    """Look at training state as a run does that continues."""
    known = json.loads((training.parent / "record.json").read_text())["resolved"][BEGUN]
    open_training(training)
    check_begun(training, kept_key(training), known)
    PrivacyLedger(PrivacyBudget(0.001), training / JOURNAL)
    next(iter(Stage("training", training / STAGE, Silent(), owner=known).steps(4, {})))


def test_training_state_that_is_damaged_is_refused(interrupted: Path) -> None:
    reopened(interrupted / TRAINING)
    for name, (damage, said) in DAMAGES.items():
        shutil.copytree(interrupted, "here", symlinks=True)
        damage(TRAINED)
        with pytest.raises(RunFailed) as refused:
            reopened(TRAINED)
        assert said in str(refused.value), name
        assert "--overwrite, which is a second release" in str(refused.value), name
        shutil.rmtree("here")


def test_a_run_whose_training_state_is_damaged_releases_nothing_more(
    dpbench: Command, toy: ModuleType, interrupted: Path
) -> None:
    for name in ("another key", "linked folder", "no journal", "no folder", "stage of garbage"):
        damage, said = DAMAGES[name]
        shutil.copytree(interrupted, "here", symlinks=True)
        damage(TRAINED)
        assert said in one_error(dpbench(*HERE)), name
        assert not toy.CALLS, f"{name}: a step was made"
        shutil.rmtree("here")
    shutil.copytree(interrupted, "here")
    ended = dpbench(*HERE)
    assert ended.code == 0 and toy.CALLS["step"] == 1
    assert "resuming: training from step 4 of 4\n" in ended.err


def check_each_release_has_one_noise(dpbench: Command, damage: Callable[[Path], Any]) -> None:
    """After the damage no step is released with other noise than before it."""
    with noise_by_step() as drawn:
        assert dpbench(*HERE).code == 130
        damage(TRAINED)
        dpbench(*HERE)
    assert sorted(drawn)[:2] == [0, 1]
    assert all(len(each) == 1 for each in drawn.values()), "a step was released twice"


def test_a_run_that_does_not_look_at_its_key_is_caught(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(count: int) -> None:
        if count == 3:
            raise KeyboardInterrupt  # in the middle of a step, so that no stage is saved

    def damaged(training: Path) -> None:
        toy.HOOKS.clear()
        toy.CALLS.clear()
        DAMAGES["another key"][0](training)

    toy.HOOKS["step"] = killed
    check_each_release_has_one_noise(dpbench, damaged)
    shutil.rmtree("here")
    toy.HOOKS["step"] = killed
    monkeypatch.setattr(steps.RunSteps, "noise_key", broken.runs.key_that_is_made_anew)
    with pytest.raises(AssertionError, match="released twice"):
        check_each_release_has_one_noise(dpbench, damaged)


# --- --overwrite


def check_overwritten(dpbench: Command, toy: ModuleType) -> None:
    """``--overwrite`` leaves nothing of the key and of the training that was."""
    interrupted_at_step(dpbench, toy, HERE, 3)
    before, keys = (TRAINED / KEY).read_bytes(), []
    toy.HOOKS["step"] = lambda count: keys.append((TRAINED / KEY).read_bytes())
    ended = dpbench(*HERE, "--overwrite")
    assert ended.code == 0
    assert "this is a second release from the same private images" in ended.err
    assert len(keys) == 4, "training was continued"
    assert before not in keys, "the key was kept"
    assert not TRAINED.exists()


def test_overwriting_removes_key_and_training_state(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_overwritten(dpbench, toy)
    shutil.rmtree("here")
    honest = folder.open_record
    with monkeypatch.context() as patch:
        patch.setattr(execute, "open_record", lambda *arguments: honest(*arguments[:2], False))
        with pytest.raises(AssertionError, match="training was continued"):
            check_overwritten(dpbench, toy)


def test_what_is_lost_or_linked_is_overwritten_and_nothing_beyond(
    dpbench: Command, toy: ModuleType, interrupted: Path
) -> None:
    shutil.copytree(interrupted, "here")
    shutil.rmtree(TRAINED)
    Path("theirs").mkdir()
    Path("theirs", "file").touch()
    TRAINED.symlink_to(Path("theirs").absolute())
    ended = dpbench(*HERE, "--overwrite")
    assert ended.code == 0 and "this is a second release" in ended.err
    assert not TRAINED.is_symlink() and Path("theirs", "file").exists()


def test_overwriting_what_never_released_is_no_second_release(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "fit_method", interrupt)
        assert dpbench(*HERE).code == 130
    assert (TRAINED / KEY).exists() and BEGUN in json.loads(Path("here/record.json").read_text())[
        "resolved"
    ]
    ended = dpbench(*HERE, "--overwrite")
    assert ended.code == 0 and "second release" not in ended.err


# --- what is left behind


def test_training_state_that_no_record_knows_is_not_continued(
    dpbench: Command, toy: ModuleType, interrupted: Path
) -> None:
    assert dpbench(*HERE, "--evaluators", "audit").code == 0
    toy.CALLS.clear()
    fresh = read_record(interrupted / "record.json")
    assert BEGUN not in json.loads(Path("here/record.json").read_text())["resolved"]
    assert fresh.resolved.pop(BEGUN)
    shutil.rmtree("here")
    shutil.copytree(interrupted, "here")
    Path("here/record.json").write_text(fresh.dumps())
    assert "the record knows nothing of" in one_error(dpbench(*HERE))
    assert not toy.CALLS


def test_a_failure_before_any_release_leaves_no_key(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise SystemExit(0)

    with monkeypatch.context() as patch:
        patch.setattr(toy.Toy, "fit", fail)
        assert "toy ends the interpreter (SystemExit: 0)" in one_error(dpbench(*HERE))
    assert not TRAINED.exists()
    assert BEGUN not in json.loads(Path("here/record.json").read_text())["resolved"]
    assert dpbench(*HERE).code == 0


def test_a_failure_after_a_release_says_that_its_key_is_left(
    dpbench: Command, toy: ModuleType
) -> None:
    def fail(count: int) -> None:
        raise ValueError("tired")

    toy.HOOKS["step"] = fail
    ended = dpbench(*HERE)
    assert "toy failed: ValueError: tired" in one_error(ended)
    assert f"{TRAINED} keeps the key of the noise and what was trained" in ended.err
    assert (TRAINED / KEY).exists()
    toy.HOOKS.clear()
    ended = dpbench(*HERE)
    assert ended.code == 0 and "resuming: training from its first step\n" in ended.err
