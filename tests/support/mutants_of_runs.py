"""Mutants of whole runs: what goes around the mechanisms, is kept, and is counted."""

from __future__ import annotations

import hashlib
import time

from dpbench.baselines.class_mean import ClassMean
from dpbench.generators.diffusion import loss as adapter
from dpbench.privacy import ledger
from dpbench.runs import execute, fitting, steps
from dpbench.training.evaluations import GradientEvaluations
from tests.support import broken, methods
from tests.support import detectors as see
from tests.support.places import (
    Mutant,
    at,
    fit_of_the_toy,
    key_of_a_run,
    key_of_all_runs,
    method,
)

MUTANTS_OF_RUNS = (
    # what goes around the mechanisms
    Mutant(
        "unledgered statistic: class sizes",
        "mechanisms only",
        see.replay_of_class_mean,
        at(ClassMean, "fit"),
        broken.runs.class_sizes_from_the_images,
    ),
    Mutant(
        "normalisation by the batch",
        "one image, one gradient",
        see.replay_of_dpdm,
        at(adapter, "from_pixels"),
        broken.runs.normalised_by_the_batch,
    ),
    Mutant(
        "labels of samples from the private set",
        "mechanisms only",
        see.labels_of_samples,
        at(steps, "uniform_labels"),
        broken.runs.labels_of_the_private_set,
    ),
    Mutant(
        "labels of a sampler from the private set",
        "mechanisms only",
        see.neighbour_replay,
        method,
        methods.TakesLabelsFromTheImages,
    ),
    Mutant(
        "statistic leaked by a callback",
        "mechanisms only",
        see.neighbour_replay,
        method,
        methods.LeaksWhatItsFeaturesSaw,
    ),
    Mutant(
        "division by the realised count",
        "mechanisms only",
        see.neighbour_replay,
        method,
        methods.DividesByTheRealisedCount,
    ),
    Mutant(
        "copies that know the batch size",
        "one image, one gradient",
        see.neighbour_replay,
        method,
        methods.WeightsByTheRealisedBatch,
    ),
    Mutant(
        "objective that keeps a state",
        "one image, one gradient",
        see.neighbour_replay,
        method,
        methods.KeepsAStateBetweenSteps,
    ),
    Mutant(
        "clipping norm from the images",
        "mechanisms only",
        see.neighbour_replay,
        method,
        methods.ClipsAtAQuantileOfTheImages,
    ),
    Mutant(
        "private statistics in the checkpoint",
        "mechanisms only",
        see.two_private_sets,
        at(steps, "fit_method"),
        broken.runs.statistics_in_the_checkpoint,
    ),
    Mutant(
        "samples chosen by private images",
        "mechanisms only",
        see.two_private_sets,
        at(steps.RunSteps, "_arrays"),
        broken.runs.samples_in_a_private_order,
    ),
    # what is counted and what is kept
    Mutant(
        "evaluations that are not counted",
        "compute budget",
        see.evaluations,
        at(GradientEvaluations, "_count"),
        lambda self, kind, count, what: None,
    ),
    Mutant(
        "journal lost at the start of fit",
        "budget",
        see.spending_of_a_resumed_run,
        at(steps, "PrivacyLedger"),
        broken.ledger.Journalless,
    ),
    Mutant(
        "--overwrite keeps key and state",
        "independent noise",
        see.overwriting,
        at(execute, "open_record"),
        broken.runs.overwrites_nothing,
    ),
    # the key
    Mutant(
        "key in the record",
        "secrecy of noise",
        see.key_attack,
        key_of_a_run,
        broken.runs.key_in_the_record,
    ),
    Mutant(
        "key in the checkpoint",
        "secrecy of noise",
        see.key_attack,
        fit_of_the_toy,
        broken.runs.key_in_the_checkpoint,
    ),
    Mutant(
        "key left behind",
        "secrecy of noise",
        see.key_attack,
        at(steps, "remove"),
        (lambda folder: None),
    ),
    Mutant(
        "key from the public seed",
        "secrecy of noise",
        see.key_attack,
        key_of_all_runs,
        (lambda: hashlib.sha256(b"0").digest()),
    ),
    Mutant(
        "key from the clock",
        "secrecy of noise",
        see.key_attack,
        key_of_all_runs,
        (lambda: hashlib.sha256(str(int(time.time())).encode()).digest()),
    ),
    Mutant(
        "streams without the key",
        "secrecy of noise",
        see.key_attack,
        at(fitting, "Streams"),
        broken.streams.SeededStreams,
    ),
    Mutant(
        "reproducible run certified",
        "secrecy of noise",
        see.void_release,
        at(ledger.PrivacyLedger, "certificate"),
        (broken.runs.certified_as_secret),
    ),
)
