"""The canary audit: compares what the mechanisms of a run release with what is claimed of them.

Canaries are examples with known gradients: canary i has a gradient of norm 10 C in a direction of
its own. A coin decides for each canary whether it is in the private set, which holds nothing else.
Two runs go through the real mechanisms (handle, ledger, Poisson sampler, clipping engine and noise)
with the claimed sample rate, noise multiplier, clipping norm and number of steps. Directions of
canaries that are not in the set show the noise alone. The second run has the empty set and the same
key, hence the same noise, so the difference of the two runs is what each member contributed.

The canaries have a small network of two embeddings, so that the audit takes seconds. The method's
own ``fit`` is run too, for a few private steps. On the empty set every tensor that it releases must
be noise of the claimed scale, and adding one image must not move the first release by more than C.
That is a single image at the initial weights; neighbour replay compares many neighbouring sets.
Choices by the exponential mechanism are left out, which the audit says.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dpbench.core.errors import UserError
from dpbench.core.progress import Progress
from dpbench.core.streams import Streams, reproducible_key
from dpbench.privacy.audit.canaries import canary_run
from dpbench.privacy.audit.decide import Audit as Audit
from dpbench.privacy.audit.decide import judge
from dpbench.privacy.audit.own_training import OWN_STEPS, own_releases
from dpbench.privacy.audit.transcript import CANARIES, Audited, Transcript
from dpbench.privacy.audit.transcript import Mechanism as Mechanism
from dpbench.privacy.events import SelectionEvent

# Largest probability that one audit of an honest mechanism raises any alarm; split over its checks.
# Leaderboards have hundreds of runs, so a second audit, split over the checks that raised an alarm,
# must repeat it, which happens to at most 0.25% of honest mechanisms. That is a rate among runs
# only because the seeds of runs differ: audits of one seed share their noise and err together.
LEVEL = 0.05


def audit(mechanism: Mechanism, seed: int, progress: Progress) -> Audit:
    """Audit the mechanisms of a claim on canaries; repeat the audit if it raises an alarm.

    No private image is read, so all draws derive from ``seed``. An alarm stands if the second
    audit, with other canaries and noise, raises it too; everything else is of the first audit.

    Args:
        mechanism: Mechanism to audit.
        seed: All draws derive from it. Audits of different seeds are independent, and audits of one
            seed share coins and noise, so their false alarms come together.
        progress: Receives progress updates.

    Raises:
        UserError: There is no claim to audit, or it rests on selections alone.
        RunFailed: The mechanisms make other releases than the events say.
    """
    if not mechanism.budget.private:
        raise UserError("there is no privacy claim to audit: epsilon is inf")
    if not mechanism.events:
        raise UserError("there is nothing to audit: the method releases nothing private")
    events = tuple(event for event in mechanism.events if isinstance(event, Audited))
    if not events:
        raise UserError(
            "there is nothing to audit: the method only selects, and no canary tells how a choice "
            "was made; dpbench check compares the scores"
        )
    left_out = tuple(e.purpose for e in mechanism.events if isinstance(e, SelectionEvent))
    once = _audit_once(mechanism, events, level_of_each(len(events)), seed, progress)
    first = replace(once, left_out=left_out)
    if not first.alarms:
        return first
    progress.note("a check raised an alarm: auditing again, with other canaries and noise")
    again = Streams(seed).seed("evaluation", "canaries", "again")
    second = _audit_once(mechanism, events, LEVEL / len(first.alarms), again, progress)
    return first.confirmed_by(second)


def level_of_each(events: int) -> float:
    """Error level of each check, such that all checks of an audit together err at ``LEVEL``."""
    # five checks of each event; the method's own noise, the largest noise and the bound of epsilon
    return LEVEL / (5 * events + 3)


def _audit_once(
    mechanism: Mechanism, events: tuple[Audited, ...], level: float, seed: int, progress: Progress
) -> Audit:
    streams = Streams(seed, reproducible_key(Streams(seed).seed("evaluation", "canaries")))
    coins = streams.public("evaluation", "canaries", "membership")
    members = (torch.rand(CANARIES, generator=coins) < 0.5).numpy()
    steps = sum(event.steps for event in events)
    with (
        tempfile.TemporaryDirectory() as folder,
        progress.task("canaries", 2 * steps + OWN_STEPS, "steps") as task,
    ):
        scratch = Path(folder)
        own = own_releases(mechanism, streams, scratch)
        task.advance(OWN_STEPS)
        owned = torch.from_numpy(np.flatnonzero(members))
        released = canary_run(mechanism, events, owned, streams, scratch / "in", task)
        noise = canary_run(mechanism, events, owned[:0], streams, scratch / "out", task)
    transcripts = [
        Transcript(event, with_members, with_members - without)
        for event, with_members, without in zip(events, released, noise, strict=True)
    ]
    rng = np.random.default_rng(streams.seed("evaluation", "canaries", "ties"))
    return judge(transcripts, members, own, mechanism.budget, level, rng)
