"""Where in the real code mutants of the mutation matrix are put."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dpbench.privacy import dpsgd, ledger, mechanisms
from dpbench.privacy import epsilon as accountant
from dpbench.privacy.clipping import ENGINES
from dpbench.runs import steps
from tests.support import detectors as see
from tests.support.detectors import Detector, Lab

Place = Callable[[Lab, Any], None]


@dataclass(frozen=True)
class Mutant:
    """A way to break privacy.

    Attributes:
        name: What it is.
        breaks: What it breaks.
        detector: What must catch it.
        place: Puts something in the place of real code.
        twin: What is put there.
    """

    name: str
    breaks: str
    detector: Detector
    place: Place
    twin: Any

    def apply(self, lab: Lab) -> None:
        """Have the real path do it."""
        self.place(lab, self.twin)


def at(owner: Any, name: str) -> Place:
    return lambda lab, twin: lab.patch.setattr(owner, name, twin)


def engines(lab: Lab, twin: Any) -> None:
    """In the place of every engine: of the one that trains networks, and of its replacements."""
    for name in ENGINES:
        lab.patch.setattr(f"dpbench.privacy.clipping.{name}.clipped_sum", twin)


def method(lab: Lab, cheat: Any) -> None:
    lab.patch.setattr(see, "METHOD", cheat)


def fit_of_the_toy(lab: Lab, twin: Any) -> None:
    """The twin gets what it replaces as its first argument."""
    honest = lab.toy.Toy.fit
    lab.patch.setattr(lab.toy.Toy, "fit", lambda *arguments: twin(honest, *arguments))


noise = at(dpsgd, "gaussian_noise")
sampler = at(dpsgd, "poisson_sample")
batch_sum = at(dpsgd, "gradient_sum")
training = at(mechanisms, "train")
accounting = at(accountant, "epsilon")
spending = at(ledger, "PrivacyLedger")
key_of_a_run = at(steps.RunSteps, "noise_key")
key_of_all_runs = at(steps, "new_key")
