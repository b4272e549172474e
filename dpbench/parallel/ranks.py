"""The processes of one run: torch.distributed, reduced to what a run needs.

Nothing in the privacy claim depends on the number of ranks. Every rank has the run's secret key, so
every rank draws the same Poisson batch, takes its share of it, and the sum of the ranks' sums of
clipped gradients is the sum over the batch, up to rounding. To that sum every rank adds the same
noise, drawn from the same key: it is in the release once, of the scale of one process, and no
broadcast is needed for the weights to be the same everywhere. The divisor is public.

What ranks tell each other (the key, sums without noise, training state) is as private as the
images: the network between them must be one to trust. ``--processes`` keeps it on the machine.

The first rank alone writes, reports, samples and evaluates.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from dpbench.core.errors import RunFailed, Unheard, UserError, described
from dpbench.parallel.cores import share_cores
from dpbench.parallel.launcher import is_rank

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

# A rank that died is noticed at once, because its connections close: this is for one that hangs.
TIMEOUT = timedelta(minutes=30)
# What the first rank tells may come late: it may have waited for the public training of another
# process, or have made synthetic images.
PATIENCE = timedelta(days=30)
# How long ranks that end wait for each other's reasons.
ROLL_CALL_SECONDS = 3.0
LOST, INTERRUPTED, MISTAKE, FAILED = "lost", "interrupted", "mistake", "failed"


@dataclass(frozen=True)
class Ranks:
    """Where this process stands among those of its run; as it is, the only one.

    Attributes:
        rank: Of this process, in [0, size).
        size: Number of processes.
        local_rank: Of this process among those on its machine.
        local_size: Number of processes on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and reports."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The part of ``range(count)`` that this rank works on; those of all ranks make it up."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype and device by their sums over ranks: bits alike on all."""

    def broadcast(self, content: bytes = b"") -> bytes:
        """Return the first rank's content on every rank; other ranks' content is ignored."""
        return content

    def any(self, here: bool) -> bool:
        """Logical OR of `here` over all ranks; every rank gets the same answer."""
        return here


ALONE = Ranks()


@contextmanager
def joined(processes: int | None = None) -> Iterator[Ranks]:
    """The ranks that this process was started as one of, or ``ALONE``.

    A rank that ends with an error leaves a note of it, so that those that wait for it end too. The
    lowest rank that is left says why: it raises its own error, or one that names the rank that
    died or failed. The others raise ``Unheard``.

    Args:
        processes: The number that the user asked for, if any.

    Raises:
        UserError: Another number of processes was started.
        RunFailed: Some ranks did not come.
    """
    if not is_rank() or int(os.environ["WORLD_SIZE"]) == 1:
        yield ALONE
        return
    group = _Group.join()
    try:
        if processes not in (None, group.size):
            raise UserError(
                f"--processes {processes}, but {group.size} were started: leave --processes out"
            )
        share_cores(group.local_size)
        yield group
    except BaseException as error:
        ending = group.ending(error)
        if ending is error:
            raise
        raise ending from error
    finally:
        group.close()


@dataclass(frozen=True, kw_only=True)
class _Group(Ranks):
    """Several processes, connected by gloo for tensors on the CPU and by NCCL for those on CUDA.

    Attributes:
        store: Where ranks leave a note when they end.
        told: The same processes, for what the first rank tells.
        notes: What ranks ended with, by rank: kind and message.
    """

    store: Store
    told: dist.ProcessGroup
    notes: dict[int, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def join(cls) -> _Group:
        cuda = torch.cuda.is_available() and dist.is_nccl_available()
        try:
            store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=store,
                rank=rank,
                world_size=size,
                timeout=TIMEOUT,
            )
            told = dist.new_group(backend="gloo", timeout=PATIENCE)
            assert isinstance(told, dist.ProcessGroup)
        except (RuntimeError, ValueError) as error:
            raise RunFailed(f"the processes of this run did not meet: {error}") from error
        return cls(
            rank=rank,
            size=size,
            local_rank=int(os.environ.get("LOCAL_RANK", rank)),
            local_size=int(os.environ.get("LOCAL_WORLD_SIZE", size)),
            store=store,
            told=told,
        )

    def close(self) -> None:
        """Close the connections, which ends the waiting of those who wait for this rank."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        self._collectively(dist.all_reduce, flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def broadcast(self, content: bytes = b"") -> bytes:
        length = torch.tensor([len(content)])
        self._collectively(dist.broadcast, length, 0, self.told)
        data = torch.zeros(int(length), dtype=torch.uint8)
        if self.first:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else data
        self._collectively(dist.broadcast, data, 0, self.told)
        return data.numpy().tobytes()

    def any(self, here: bool) -> bool:
        flag = torch.tensor([int(here)])
        self._collectively(dist.all_reduce, flag, dist.ReduceOp.MAX)
        return bool(flag)

    def _collectively(self, operation: Callable[..., Any], *arguments: Any) -> None:
        try:
            operation(*arguments)
        except RuntimeError as error:  # the connection to a rank was closed
            raise self._because_of_others() from error

    def _because_of_others(self) -> BaseException:
        """Why a rank is gone, as the error that this one ends with."""
        self._call_roll(LOST, "")
        if self._speaker() != self.rank:
            return Unheard()
        for rank, (kind, message) in sorted(self.notes.items()):
            if kind == INTERRUPTED:
                return KeyboardInterrupt()
            if kind == MISTAKE:
                return UserError(message)
            if kind == FAILED:
                return RunFailed(f"rank {rank} failed: {message}")
        missing = [str(rank) for rank in range(self.size) if rank not in self.notes]
        return RunFailed(
            f"rank {', '.join(missing) or 'unknown'} of {self.size} died or hangs: "
            "the same command continues from the last checkpoint"
        )

    def ending(self, error: BaseException) -> BaseException:
        """What this rank ends with, given what it came upon."""
        if self.notes:  # it was lost already, and this is the consequence
            return error
        if isinstance(error, KeyboardInterrupt):
            self._call_roll(INTERRUPTED, "")
        elif isinstance(error, UserError):
            self._call_roll(MISTAKE, str(error))
        else:
            said = str(error) if isinstance(error, RunFailed) else described(error)
            self._call_roll(FAILED, said)
        return error if self._speaker() == self.rank else Unheard()

    def _speaker(self) -> int:
        return min(self.notes)

    def _call_roll(self, kind: str, message: str) -> None:
        """Leave a note, and collect those of the others that are alive."""
        self.notes[self.rank] = (kind, message)
        self.close()
        deadline = time.monotonic() + ROLL_CALL_SECONDS
        try:
            self.store.set(f"ended/{self.rank}", json.dumps([kind, message]))
            while len(self.notes) < self.size and time.monotonic() < deadline:
                for rank in set(range(self.size)) - self.notes.keys():
                    if self.store.check([f"ended/{rank}"]):
                        self.notes[rank] = tuple(json.loads(self.store.get(f"ended/{rank}")))
                time.sleep(0.02)
        except RuntimeError:  # the store went with the rank that kept it
            pass
