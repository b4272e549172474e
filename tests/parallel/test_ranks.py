from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dpbench.core.errors import UserError
from dpbench.parallel import cores, ranks
from dpbench.parallel.device import resolve_device
from dpbench.parallel.ranks import ALONE, Ranks, joined
from dpbench.runs.folder import TRAINING
from tests.support.command import TOY, Command

# --- torch.distributed


def in_processes(size: int, work: Callable[[Ranks], object]) -> tuple[list[int], list[str]]:
    """Exit codes of forked ranks, and how the work of each ended."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    children, pipes = [], []
    for rank in range(size):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                with os.fdopen(write, "w") as out:
                    out.write(_ended(rank, size, port, work))
            finally:
                os._exit(0)
        os.close(write)
        children.append(child)
        pipes.append(read)
    store = dist.TCPStore(
        "127.0.0.1",
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
    ends = []
    for pipe in pipes:
        with os.fdopen(pipe) as end:
            ends.append(end.read())
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    del store
    return codes, ends


def _ended(rank: int, size: int, port: int, work: Callable[[Ranks], object]) -> str:
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        GLOO_SOCKET_IFNAME="lo",
        TORCHELASTIC_USE_AGENT_STORE="True",
        TORCHELASTIC_RESTART_COUNT="0",
    )
    try:
        with joined() as group:
            return repr(work(group))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def test_ranks_add_up_tell_and_agree() -> None:
    def work(group: Ranks) -> object:
        tensors = [torch.full((2, 3), 1.0 + group.rank), torch.full((4,), 10.0 * group.rank)]
        group.add_up(tensors)
        told = [group.broadcast(b"key" if group.first else b"?"), group.broadcast(b"")]
        agreed = [group.any(group.rank == 2), group.any(False)]
        return [t.tolist() for t in tensors], told, agreed, cores.core_count()

    codes, ends = in_processes(3, work)
    each = max(1, cores.core_count() // 3)
    expected = ([[[6.0] * 3] * 2, [30.0] * 4], [b"key", b""], [True, False], each)
    assert codes == [0, 0, 0]
    assert ends == [repr(expected)] * 3


def test_sums_have_the_same_bits_on_all_ranks() -> None:
    def work(group: Ranks) -> object:
        generator = torch.Generator().manual_seed(group.rank)
        tensors = [torch.randn(1000, 33, generator=generator)]
        group.add_up(tensors)
        return tensors[0].numpy().tobytes().hex()

    _, ends = in_processes(3, work)
    assert len(set(ends)) == 1


def dies(group: Ranks) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fails(group: Ranks) -> None:
    raise ValueError("out of luck")


def errs(group: Ranks) -> None:
    raise UserError("no such thing: use another")


def is_interrupted(group: Ranks) -> None:
    raise KeyboardInterrupt


DIED = "RunFailed: rank {} of 3 died or hangs: the same command continues from the last checkpoint"


@pytest.mark.parametrize(
    ("number", "end", "expected"),
    [
        (1, dies, [DIED.format(1), "", "Unheard: "]),
        (0, dies, ["", DIED.format(0), "Unheard: "]),
        (2, fails, ["RunFailed: rank 2 failed: ValueError: out of luck", *["Unheard: "] * 2]),
        (0, fails, ["ValueError: out of luck", *["Unheard: "] * 2]),
        (1, errs, ["UserError: no such thing: use another", *["Unheard: "] * 2]),
        (1, is_interrupted, ["KeyboardInterrupt: ", *["Unheard: "] * 2]),
    ],
    ids=["death", "death of the first", "failure", "failure of the first", "mistake", "Ctrl-C"],
)
def test_the_end_of_one_rank_ends_all_and_the_lowest_that_is_left_says_why(
    number: int,
    end: Callable[[Ranks], None],
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranks, "ROLL_CALL_SECONDS", 1.0)

    def work(group: Ranks) -> None:
        for step in range(100):
            if step == 3 and group.rank == number:
                end(group)
            group.add_up([torch.ones(10)])
        raise AssertionError("nothing was noticed")

    started = time.monotonic()
    codes, ends = in_processes(3, work)
    assert ends == expected
    assert [code == -signal.SIGKILL for code in codes] == [not each for each in expected]
    assert time.monotonic() - started < 10


def test_another_number_of_processes_than_was_started_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with joined(1) as alone:
        assert alone is ALONE

    _, ends = in_processes(2, lambda group: None)
    assert ends == ["None", "None"]
    monkeypatch.setattr(sys.modules[__name__], "joined", lambda: ranks.joined(3))
    _, ends = in_processes(2, lambda group: None)
    assert ends == [
        "UserError: --processes 3, but 2 were started: leave --processes out",
        "Unheard: ",
    ]


def test_each_rank_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.setattr(torch, "Generator", lambda device: None)
    for name in ("auto", "cuda"):
        assert resolve_device(name, Ranks(5, 8, 1, 2)) == torch.device("cuda:1")
    assert resolve_device("cpu", Ranks(5, 8, 1, 2)) == torch.device("cpu")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="--device cuda:1 is no device for 8 processes"):
        resolve_device("cuda:1", Ranks(5, 8, 1, 2))
    with pytest.raises(UserError, match="4 processes need as many CUDA devices; here are 2"):
        resolve_device("cuda", Ranks(3, 4, 3, 4))


# --- the command line

REAL = (
    *("run", "--method", "dpsyngen", "--dataset", "digits", "--profile", "smoke"),
    *("--eps", "10", "--reproducible", "--set", "steps=20"),
)
TORCHRUN = ("torch.distributed.run", "--nproc-per-node", "2", "-m", "dpbench")


def weights(folder: Path) -> Tensor:
    sampler = torch.load(folder / "checkpoint.pt", weights_only=False)
    (network,) = (part for part in vars(sampler).values() if isinstance(part, nn.Module))
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return content


def assert_same_run(folder: Path, whole: Path) -> None:
    expected = weights(whole)
    assert float((weights(folder) - expected).norm()) <= 1e-5 * float(expected.norm())
    ours, theirs = record(folder), record(whole)
    assert ours["resolved"].pop("processes") == 2
    assert theirs["resolved"].pop("processes") == 1
    for content in (ours, theirs):
        for varying in ("timings", "environment", "artifacts", "measurements", "digest"):
            content.pop(varying)
        content["resolved"].pop("cores")
        content["resolved"]["pretrained"].pop("reused")  # the second finds what the first left
        for execution in content["resolved"]["gradients"].values():
            execution.pop("copies_per_s")
        content["cost"].pop("peak_memory_mb")
    assert ours == theirs
    assert ours["status"] == "complete"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process gives that nothing interrupts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    subprocess.run([sys.executable, "-m", "dpbench", *REAL, "--out", folder], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", [("dpbench",), TORCHRUN], ids=["--processes", "torchrun"])
def test_two_processes_give_the_weights_the_certificate_and_the_record_of_one(
    whole: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    options = () if command == TORCHRUN else ("--processes", "2")
    ended = subprocess.run(
        [sys.executable, "-m", *command, *REAL, *options, "--out", tmp_path / "here", "--json"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},  # without public weights
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ended.stdout) == record(tmp_path / "here")  # said once
    assert ended.stderr.count("guarantee") == 1
    assert not record(tmp_path / "here")["resolved"]["pretrained"]["reused"]
    assert_same_run(tmp_path / "here", whole)


def rank_of(process: int) -> str:
    variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next(v[5:] for v in variables if v.startswith(b"RANK=")).decode()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["0", "1", "Ctrl-C", "launcher"])
def test_a_signal_in_the_middle_ends_all_ranks_at_once_and_changes_no_weight(
    whole: Path, tmp_path: Path, victim: str
) -> None:
    here = tmp_path / "here"
    command = [sys.executable, "-m", "dpbench", *REAL, "--processes", "2", "--out", here]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (here / TRAINING / "ledger.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ours = {rank_of(int(child)): int(child) for child in children}
        assert set(ours) == {"0", "1"}
        if victim == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            os.kill(ours.get(victim, process.pid), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    if victim == "Ctrl-C":
        assert process.returncode == 130
        assert err.endswith("\nInterrupted: the same command continues where this one stopped.\n")
        stage = torch.load(here / TRAINING / "private.stage", weights_only=True)
        assert 0 < stage["done"] < 20
    elif victim == "launcher":
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{child}").exists() for child in children):
            assert time.monotonic() < deadline, "ranks outlive the process that started them"
            time.sleep(0.1)
    else:
        assert process.returncode == 1
        last = err.rstrip("\n").split("\n")[-1]
        assert last.startswith(f"Error: rank {victim} of 2 died") and err.count("Error") == 1
        assert "the same command continues" in last
    assert record(here)["status"] == ("failed" if victim == "1" else "started")
    subprocess.run(command, check=True)
    assert_same_run(here, whole)


@pytest.mark.slow
def test_a_mistake_is_said_once_by_all_processes() -> None:
    command = [sys.executable, "-m", "dpbench", "run", "--method", "dpsyn", "--dataset", "digits"]
    ended = subprocess.run([*command, "--processes", "2"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("Error: Unknown method 'dpsyn'")


def test_one_process_is_no_process_more(dpbench: Command, toy: object) -> None:
    assert dpbench(*TOY, "--processes", 1).code == 0
    ended = dpbench(*TOY, "--processes", 0)
    assert ended.code == 2 and "'--processes'" in ended.err
