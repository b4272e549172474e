from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from dpbench.core.errors import UserError
from dpbench.parallel import cores, ranks
from dpbench.parallel.device import resolve_device
from dpbench.parallel.ranks import ALONE, Ranks, joined

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


def test_ranks_wait_for_what_the_first_is_late_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "TIMEOUT", timedelta(seconds=1))

    def work(group: Ranks) -> object:
        if group.first:
            time.sleep(2)  # for the public training of another process
        return group.broadcast(b"weights")

    assert in_processes(2, work) == ([0, 0], [repr(b"weights")] * 2)


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

    codes, ends = in_processes(3, work)
    assert ends == expected
    assert [code == -signal.SIGKILL for code in codes] == [not each for each in expected]


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
