"""The canary audit: what the mechanisms of a run do, seen from outside, against what is claimed.

Canaries are examples whose gradient is known: canary i has norm 10 C in a direction of its own.
They, and nothing else, are the private set of two runs through the real mechanisms: handle,
ledger, Poisson sampler, clipping engine and noise, at the sample rate, noise multiplier, clipping
norm and number of steps that are claimed. Whether a canary is in the set is decided by a coin. A
direction that no member owns shows the noise. A second run on the empty set under the same key has
the same noise, so the difference of the two is what each member contributed, without any noise.

The canaries have a network of their own, of two embeddings, so that the audit takes seconds. The
method's own ``fit`` is run too, for a few private steps. On the empty set every tensor that it
releases must be noise of the claimed scale; one image more must not move the first release by more
than C. That is one image at the initial weights: comparing many neighbouring sets sees more.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from dpbench.core.errors import UserError
from dpbench.core.progress import Progress
from dpbench.core.streams import Streams, reproducible_key
from dpbench.privacy.audit.canaries import canary_run
from dpbench.privacy.audit.decide import Audit, judge
from dpbench.privacy.audit.own_training import OWN_STEPS, own_releases
from dpbench.privacy.audit.transcript import CANARIES, Audited, Mechanism, Transcript

__all__ = ["LEVEL", "Audit", "Mechanism", "audit", "level_of_each"]

# The chance of an honest mechanism to raise any alarm in one audit; split over the checks. A second
# audit, split over the checks that raised one, must repeat an alarm: leaderboards have hundreds of
# runs, and .25% of honest ones raise it twice.
LEVEL = 0.05


def audit(mechanism: Mechanism, seed: int, progress: Progress) -> Audit:
    """Run the mechanisms of a claim on canaries and compare; after an alarm, once more.

    No private image is read, so all draws derive from ``seed``. An alarm stays if the second audit,
    of canaries and noise of its own, raises it too; all else is what the first audit saw.

    Args:
        mechanism: What is audited.
        seed: Another seed is an independent audit.
        progress: Who is told.

    Raises:
        UserError: There is no claim to audit, or it rests on events that no audit is known for.
        RunFailed: The mechanisms made other releases than the events say: no statistics needed.
    """
    if not mechanism.budget.private:
        raise UserError("there is no privacy claim to audit: epsilon is inf")
    if not mechanism.events:
        raise UserError("there is nothing to audit: the method releases nothing private")
    events = tuple(event for event in mechanism.events if isinstance(event, Audited))
    if events != mechanism.events:
        raise UserError("the method makes releases that no audit knows: it knows Gaussian ones")
    first = _audit_once(mechanism, events, level_of_each(len(events)), seed, progress)
    if not first.alarms:
        return first
    progress.note("a check raised an alarm: auditing again, with other canaries and noise")
    again = Streams(seed).seed("evaluation", "canaries", "again")
    second = _audit_once(mechanism, events, LEVEL / len(first.alarms), again, progress)
    return first.confirmed_by(second)


def level_of_each(events: int) -> float:
    """The level of each check of one audit of some events, so that all together err at LEVEL."""
    # five of each event, that of the method's own noise, and the bound of epsilon
    return LEVEL / (5 * events + 2)


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
