"""Starting the processes of one run on this machine, and watching them: ``run --processes N``.

``torchrun`` does as much. This says in one line what went wrong, forwards Ctrl-C once and waits for
the step that is under way, and keeps all connections on the loopback interface.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from dpbench.core.errors import UNHEARD, RunFailed, UserError
from dpbench.core.signals import INTERRUPTED, handled, interruption_code, received

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

# How long processes may go on after one of them has ended badly. They notice by themselves, unless
# they are in the middle of something long, which is lost in any case.
GRACE_SECONDS = 30.0
_WATCHED = "DPBENCH_WATCHED"
# processes that any machine may be asked for, however few cores it has
_FEW = 16


def is_rank() -> bool:
    """Whether this process was started as one of several, by ``launch`` or by torchrun."""
    return os.environ.keys() >= {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def is_first() -> bool:
    """Whether this process is the one of its run that speaks."""
    return not is_rank() or int(os.environ["RANK"]) == 0


def end_with_launcher() -> None:
    """Have this process interrupted when the one that did ``start`` it is killed."""

    def watch() -> None:
        os.read(0, 1)  # nothing is ever written: this returns when the other end is gone
        os.kill(os.getpid(), signal.SIGTERM)

    if os.environ.get(_WATCHED):
        threading.Thread(target=watch, daemon=True).start()


def start(
    arguments: Sequence[str], environment: Mapping[str, str], stdout: int | None = None
) -> subprocess.Popen[bytes]:
    """Start ``dpbench`` with ``arguments`` in a process that ends when this one is killed.

    It is in a session of its own, so that Ctrl-C reaches it through this process alone.

    Args:
        arguments: What follows ``dpbench``.
        environment: What it has besides this process's environment.
        stdout: The file descriptor that it prints to instead of standard output.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "dpbench", *arguments],
        env={**os.environ, **environment, _WATCHED: "1"},
        stdin=subprocess.PIPE,  # closes when this process dies: see end_with_launcher
        stdout=stdout,
        start_new_session=True,
    )


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run the command line ``arguments`` in several processes that know of each other.

    Args:
        processes: How many.
        arguments: What follows ``dpbench``.

    Returns:
        Exit code of the first rank that failed, or 0. Errors have already been printed.

    Raises:
        UserError: More processes than this machine has cores, and than 16; none is started.
        RunFailed: Processes were killed, and none was left to say so.
        KeyboardInterrupt: The same, after an interruption.
    """
    most = max(_FEW, os.cpu_count() or 1)
    if processes > most:  # each takes half a gigabyte before it can say anything
        raise UserError(
            f"--processes {processes} is more than this machine can share a run among: give at "
            f"most {most}"
        )
    # ranks meet at a store that this process keeps, where no other machine can reach it
    listener = socket.create_server(("127.0.0.1", 0))
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    shared = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(listener.getsockname()[1]),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        # what torch would add to the one line that says what happened
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
        # torchrun's way of saying that the store is kept by who started the ranks
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    children: list[subprocess.Popen[bytes]] = []
    interrupted: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received(number)
        interrupted.append(number)
        for child in children:
            child.send_signal(number)

    with handled(forward):
        try:
            for rank in range(processes):
                environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                children.append(start(arguments, environment))
            store = _store(listener, processes)
            codes = _wait(children)
            del store
        finally:
            for child in children:
                child.kill()
                child.wait()
    said = [code for code in codes if code is not None and code > 0 and code != UNHEARD]
    if said:  # of an interruption the ranks may have heard from each other
        return interruption_code() if interrupted and said[0] in INTERRUPTED else said[0]
    if not any(code != 0 for code in codes):
        return 0
    if interrupted:
        raise KeyboardInterrupt
    killed = [
        f"rank {rank} of {processes} was killed by {signal.Signals(-code).name}"
        for rank, code in enumerate(codes)
        if code is not None and code < 0
    ]
    raise RunFailed(
        f"{', '.join(killed) or 'a process ended'}: "
        "the same command continues from the last checkpoint"
    )


def _store(listener: socket.socket, processes: int) -> TCPStore:
    import torch.distributed as dist  # takes seconds, so only after the children were started

    return dist.TCPStore(  # type: ignore[attr-defined]  # mypy sees no stub of it
        "127.0.0.1",
        listener.getsockname()[1],
        processes,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """Exit codes; None for those that run ``GRACE_SECONDS`` after another one has ended badly."""
    deadline = None
    while any(child.poll() is None for child in children):
        if deadline is None and any(child.returncode for child in children):
            deadline = time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return [child.returncode for child in children]
