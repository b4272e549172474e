"""Mutants of the mutation matrix: every way in which privacy is broken on purpose."""

from __future__ import annotations

import torch

from dpbench.privacy import dpsgd, mechanisms
from dpbench.privacy.ledger import Allowance
from dpbench.training.loop import Stage
from tests.support import broken
from tests.support import detectors as see
from tests.support.mutants_of_runs import MUTANTS_OF_RUNS
from tests.support.places import (
    Mutant,
    accounting,
    at,
    batch_sum,
    engines,
    key_of_a_run,
    noise,
    sampler,
    spending,
    training,
)

MUTANTS = (
    # the gradient of an example
    Mutant(
        "no clipping", "sensitivity", see.neighbour_replay, engines, broken.clipping.never_clips
    ),
    Mutant(
        "clip per copy without mean",
        "sensitivity, K times C",
        see.neighbour_replay,
        engines,
        broken.clipping.clips_each_copy_without_mean,
    ),
    Mutant(
        "clip per copy with mean",
        "the stated gradient",
        see.autograd,
        engines,
        broken.clipping.clips_each_copy,
    ),
    Mutant(
        "clip per tensor", "sensitivity", see.autograd, engines, broken.clipping.clips_each_tensor
    ),
    Mutant(
        "clip the batch",
        "sensitivity",
        see.physical_batches,
        engines,
        broken.clipping.clips_the_batch,
    ),
    Mutant(
        "norms in bfloat16",
        "sensitivity",
        see.autograd,
        engines,
        broken.clipping.takes_norms_in_bfloat16,
    ),
    Mutant(
        "NaN gradient let through",
        "sensitivity",
        see.neighbour_replay,
        engines,
        broken.clipping.lets_nan_through,
    ),
    Mutant(
        "no clipping of a one-shot sum",
        "sensitivity",
        see.neighbour_replay,
        at(mechanisms, "clip_factors"),
        (lambda norms, c: torch.ones_like(norms)),
    ),
    Mutant(
        "divisor by the actual batch",
        "sensitivity",
        see.neighbour_replay,
        batch_sum,
        broken.clipping.divides_by_the_realised_batch,
    ),
    # noise
    Mutant("noise x 0", "noise", see.noise_statistics, noise, broken.noise.scaled_by(0.0)),
    Mutant("noise x 0.1", "noise", see.noise_statistics, noise, broken.noise.scaled_by(0.1)),
    Mutant("noise x 0.97", "noise", see.noise_statistics, noise, broken.noise.scaled_by(0.97)),
    Mutant("noise cut at 3 sigma", "noise", see.noise_statistics, noise, broken.noise.cut_at(3.0)),
    Mutant("noise cut at 4 sigma", "noise", see.noise_statistics, noise, broken.noise.cut_at(4.0)),
    Mutant(
        "noise in half precision",
        "noise",
        see.noise_statistics,
        noise,
        broken.noise.in_half_precision,
    ),
    Mutant(
        "noise missing on one tensor",
        "noise",
        see.noise_statistics,
        noise,
        broken.noise.missing_on("bias"),
    ),
    Mutant(
        "noise seed reused by steps",
        "independent noise",
        see.noise_statistics,
        noise,
        broken.noise.the_same_at_every_step,
    ),
    Mutant(
        "noise seed reused by purposes",
        "independent noise",
        see.noise_statistics,
        noise,
        broken.noise.the_same_for_every_purpose,
    ),
    Mutant(
        "noise from the public seed",
        "secrecy of noise",
        see.noise_secrecy,
        noise,
        broken.noise.from_the_public_seed,
    ),
    Mutant(
        "average of weights without noise",
        "every release has noise",
        see.average,
        training,
        broken.training.averages_weights_without_noise,
    ),
    # sampling
    Mutant(
        "shuffling instead of Poisson",
        "amplification by sampling",
        see.sampler_statistics,
        sampler,
        broken.sampling.shuffles,
    ),
    Mutant(
        "one batch again and again",
        "amplification by sampling",
        see.sampler_statistics,
        sampler,
        broken.sampling.takes_the_first_batch_again,
    ),
    Mutant(
        "empty batches drawn again",
        "amplification by sampling",
        see.empty_batches,
        sampler,
        broken.sampling.never_empty,
    ),
    # accounting
    Mutant(
        "wrong sample rate in the event",
        "what is executed is accounted",
        see.executed,
        training,
        broken.training.samples_at_twice_the_rate,
    ),
    Mutant(
        "wrong noise in the event",
        "what is executed is accounted",
        see.executed,
        training,
        broken.training.adds_a_tenth_less_noise,
    ),
    Mutant(
        "wrong clipping norm in the event",
        "what is executed is accounted",
        see.executed,
        training,
        broken.training.clips_at_twice_the_norm,
    ),
    Mutant(
        "steps executed > steps accounted",
        "what is executed is accounted",
        see.executed,
        training,
        broken.training.makes_one_step_more,
    ),
    Mutant(
        "sample rate of a loader",
        "epsilon",
        see.golden,
        accounting,
        broken.accounting.takes_the_rate_of_a_loader,
    ),
    Mutant("epsilon by GDP", "epsilon", see.golden, accounting, broken.accounting.gaussian_dp),
    Mutant("ledger without a limit", "budget", see.budget, spending, broken.ledger.Lenient),
    Mutant(
        "budget with a tolerance of 0.1%",
        "budget",
        see.budget,
        spending,
        broken.ledger.tolerant(0.001),
    ),
    Mutant(
        "budget with a tolerance of 2%",
        "budget",
        see.budget,
        spending,
        broken.ledger.tolerant(0.02),
    ),
    Mutant(
        "ledger that does not know the plan",
        "what is spent is planned",
        see.planned,
        spending,
        broken.ledger.Planless,
    ),
    Mutant(
        "event changed after it was spent",
        "what is executed is accounted",
        see.spent_by_value,
        spending,
        broken.ledger.Referring,
    ),
    Mutant(
        "event that states its own cost",
        "epsilon",
        see.own_events_only,
        spending,
        broken.ledger.Trusting,
    ),
    Mutant(
        "ledger that writes late",
        "ledger first, release after",
        see.journal,
        spending,
        broken.ledger.Unwritten,
    ),
    Mutant(
        "one purpose spent twice",
        "independent noise",
        see.purposes,
        spending,
        broken.ledger.Permissive,
    ),
    Mutant(
        "certificate before the end",
        "what is executed is accounted",
        see.certificate,
        spending,
        broken.ledger.Hasty,
    ),
    # resuming
    Mutant(
        "resume from the first step",
        "no release is made twice",
        see.resumed,
        at(Stage, "_load"),
        broken.training.starts_over,
    ),
    Mutant(
        "resume that forgets its releases",
        "no release is made twice",
        see.resumed,
        at(Allowance, "state_dict"),
        lambda self: {"released": 0},
    ),
    Mutant(
        "resume that forgets its ledger",
        "budget",
        see.spending_again,
        spending,
        broken.ledger.Forgetful,
    ),
    Mutant(
        "resume with a new noise key",
        "no release is made twice",
        see.noise_of_a_resumed_run,
        key_of_a_run,
        broken.runs.key_that_is_made_anew,
    ),
    # several processes
    Mutant(
        "noise of every rank added up",
        "noise",
        see.several_ranks,
        noise,
        broken.ranks.of_its_own_added_up,
    ),
    Mutant("each rank its own noise", "noise", see.several_ranks, noise, broken.ranks.of_its_own),
    Mutant(
        "each rank its own batch",
        "sampling",
        see.several_ranks,
        batch_sum,
        broken.ranks.samples_on_every_rank,
    ),
    Mutant(
        "divisor by a rank's share",
        "sensitivity",
        see.several_ranks,
        batch_sum,
        broken.ranks.divides_by_its_share,
    ),
    Mutant(
        "copies drawn one after another",
        "one image, one gradient",
        see.physical_batches,
        at(dpsgd, "drawn_copies"),
        broken.clipping.draws_one_after_another,
    ),
    *MUTANTS_OF_RUNS,
)
