"""How an evaluator ended in a run, or for samples made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["measured", "unavailable", "failed"]


@dataclass(frozen=True)
class EvaluatorStatus:
    """How the latest call of an evaluator ended.

    Attributes:
        outcome: ``measured`` if its rows will not change, even those with a reason in place of a
            value; ``unavailable`` if it lacks something that a user may supply later, such as a
            file of weights; ``failed`` if it raised, or could not be imported. The last two are
            tried again by the same command.
        version: Version of the evaluator's code.
        reason: Why it is unavailable, or its error; ``""`` exactly when it measured.
    """

    outcome: Outcome
    version: str
    reason: str = ""
