"""What in a record contradicts itself, the events in it, or the files beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dpbench.core.errors import UserError, described
from dpbench.core.files import sha256
from dpbench.core.regular import read_regular
from dpbench.core.strict import parse_json
from dpbench.data.catalog import CATALOG
from dpbench.privacy.budget import neighbours
from dpbench.privacy.certificate import certificate_violations, events_of, is_earlier
from dpbench.privacy.epsilon import ACCOUNTANT, noiseless
from dpbench.privacy.events import DPSGDEvent, Event, event_to_json
from dpbench.privacy.ledger import release_status
from dpbench.records.accounts import Accounts, check_size
from dpbench.records.run_record import LARGEST, RELEASES, RunRecord

# Relative tolerance of epsilon for the same version of the accountant, and for another version.
SAME, SIMILAR = 1e-5, 1e-3
# what a complete record counts
_COUNTS = ("private_evaluations", "public_evaluations")

EARLIER_CERTIFICATE = (
    "Gaussian-DP bound, public number of images and provenance of the tuning: certificates of "
    "version 2 state none; epsilon, events, counters and spec were compared as far as they go"
)
EARLIER_RECORD = (
    "by which versions of method and evaluators it was made, and whether its public weights and "
    "the noise of its audit are its own: records of schema version 1 do not say, and runs of one "
    "seed shared them"
)


class Contradictions:
    """Collects what is wrong with a record and what could not be checked.

    Attributes:
        claimed: The claimed epsilon; None where no claim can be read.
        recomputed: Epsilon of the events; None where they cannot be read or there is no budget.
        wrong: Contradictions, one line each.
        unchecked: What could not be checked and why, one line each.
    """

    def __init__(self, file: Path, record: RunRecord, accounts: Accounts) -> None:
        """Look at nothing yet."""
        self.folder = file.parent
        self.accounts = accounts
        self.spec = record.spec
        self.record = record
        self.privacy = record.privacy
        self.claimed: float | None = None
        self.recomputed: float | None = None
        self.events: tuple[Event, ...] | None = None
        self.wrong: list[str] = []
        self.unchecked: list[str] = []

    def certificate(self) -> None:
        """Compare the claim with its events, the spec and itself."""
        if not self.privacy:
            self.wrong.append(f"there is no certificate: the run is {self.record.status!r}")
            return
        if violations := certificate_violations(self.privacy):
            self.wrong += violations
            return  # what follows relies on names and types
        self.earlier()
        try:
            self.events = events_of(self.privacy)
            self.claimed = float(self.privacy["epsilon"])
            self._epsilon(self.events)
            self._spec(self.events)
            if not is_earlier(self.privacy):
                self._meaning(self.events)
            self._counters(self.events, "the certificate", self.privacy["events"])
            self._work(self.events)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            self.wrong.append(f"privacy cannot be read: {described(error)}")

    def parts(self) -> None:
        """Say what a complete record lacks."""
        record = self.record
        if record.status != "complete":
            return
        lacking = [
            *(f"cost.{name}" for name in _COUNTS if name not in record.cost),
            *(f"timings.{name}" for name in ("fit",) if name not in record.timings),
        ]
        self.wrong += [f"there is no {name}" for name in lacking]
        unknown = set(record.resolved.get("by_hand", [])) - record.spec.method_args.keys()
        if unknown:
            names = ", ".join(sorted(unknown))
            self.wrong.append(f"{names}: set by hand, and no hyper-parameter in the spec")

    def earlier(self) -> None:
        """Say what a record from before records had versions cannot tell."""
        if is_earlier(self.privacy):
            self.unchecked.append(EARLIER_CERTIFICATE)
            if self.spec.schema_version > 1:
                self.wrong.append("records of schema version 2 have certificates of version 3")
        if self.spec.schema_version == 1:
            self.unchecked.append(EARLIER_RECORD)

    def _epsilon(self, events: tuple[Event, ...]) -> None:
        """Compute epsilon by PLD, and by the accountants that the certificate quotes."""
        claim, delta, adjacency = self.claimed, self.privacy["delta"], self.privacy["adjacency"]
        assert claim is not None
        if not math.isfinite(self.spec.epsilon):
            # without a budget nothing is claimed, whatever noise there was
            if math.isfinite(claim):
                self.wrong.append(f"epsilon is {claim:.6g}, but the run has no budget")
            return
        if not noiseless(events):
            try:
                check_size(events, adjacency, claim)
            except ValueError as error:
                self.wrong.append(str(error))
                return
        self.recomputed = self.accounts.epsilon(events, delta, adjacency)
        same = self.privacy["accountant"] == ACCOUNTANT
        if not _agree(claim, self.recomputed, SAME if same else SIMILAR):
            self.wrong.append(
                f"epsilon is {claim:.6g}, but the events give {self.recomputed:.6g} ({ACCOUNTANT})"
            )
        if self.recomputed > self.spec.epsilon * (1 + SAME):
            self.wrong.append(
                f"the events give epsilon {self.recomputed:.6g}, over the budget of "
                f"{self.spec.epsilon:g}"
            )
        if not same:
            self.unchecked.append(
                f"epsilon beyond {SIMILAR:.1%}: it was computed by {self.privacy['accountant']}, "
                f"here is {ACCOUNTANT}"
            )
        self._cross_checks(events)

    def _cross_checks(self, events: tuple[Event, ...]) -> None:
        quoted = {each["accountant"]: each for each in self.privacy.get("cross_checks", ())}
        if not quoted:
            return
        delta, adjacency = self.privacy["delta"], self.privacy["adjacency"]
        for ours in self.accounts.cross_checks(events, delta, adjacency):
            name = ours["accountant"]
            if name not in quoted:
                self.unchecked.append(f"cross-checks: there is none by {name}")
            elif not _agree(_number(quoted[name]), _number(ours), SAME):
                self.wrong.append(
                    f"the cross-check by {name} says {_said(quoted[name])}, "
                    f"but the events give {_said(ours)}"
                )

    def _meaning(self, events: tuple[Event, ...]) -> None:
        """Compare what the certificate says beside epsilon with its events, spec and choices."""
        spec, size = self.spec, self.privacy["declared_size"]
        if spec.dataset not in CATALOG:
            self.unchecked.append(f"declared_size: the size of {spec.dataset} is not known here")
        elif size != CATALOG[spec.dataset].train:
            self.wrong.append(
                f"declared_size is {size}, but {spec.dataset} has {CATALOG[spec.dataset].train} "
                "train images"
            )
        if self.privacy["neighbours"] != neighbours(self.privacy["adjacency"], size):
            self.wrong.append("neighbours does not say what the adjacency means")
        self._gaussian_dp(events)
        for name in ("preset", "by_hand"):
            said, resolved = self.privacy["tuning"][name], self.record.resolved.get(name)
            if resolved is not None and said != resolved:
                self.wrong.append(f"tuning.{name} is {said!r}, but {resolved!r} in resolved")

    def _gaussian_dp(self, events: tuple[Event, ...]) -> None:
        """Compute mu again: the range ends where the certificate's epsilon is."""
        said, claim = self.privacy["gaussian_dp"], self.claimed
        assert claim is not None
        if said is None or not math.isfinite(self.spec.epsilon) or not math.isfinite(claim):
            if (said is None) == math.isfinite(self.spec.epsilon):
                self.wrong.append("gaussian_dp is there exactly if there is a budget")
            return
        if self.recomputed is None or not math.isfinite(self.recomputed):
            return  # there is a line of it already
        ours = self.accounts.gaussian_dp(events, self.privacy["adjacency"], claim)
        tolerance = SAME if self.privacy["accountant"] == ACCOUNTANT else SIMILAR
        same_range = _agree(float(said["up_to_epsilon"]), ours.up_to_epsilon, tolerance)
        same_kind = said["direction"] == ours.direction
        if not (_agree(said["mu"], ours.mu, tolerance) and same_range and same_kind):
            self.wrong.append(
                f"gaussian_dp is mu {said['mu']:.6g} up to epsilon {said['up_to_epsilon']}, but "
                f"the events give {ours.mu:.6g} up to {ours.up_to_epsilon:.6g} ({ours.direction})"
            )

    def _spec(self, events: tuple[Event, ...]) -> None:
        """Compare what certificate and spec both state."""
        spec, args = self.spec, self.spec.method_args
        for name in ("delta", "adjacency"):
            if self.privacy[name] != getattr(spec, name):
                self.wrong.append(
                    f"{name} is {self.privacy[name]}, but {getattr(spec, name)} in the spec"
                )
        release = release_status(math.isfinite(spec.epsilon), spec.reproducible)
        if self.privacy["release"] != release:
            self.wrong.append(
                f"release is {self.privacy['release']!r}, but the spec gives {release!r}"
            )
        expected: dict[str, Any] = {
            name: args[name] for name in ("steps", "clipping_norm") if name in args
        }
        if "batch_size" in args:
            if spec.dataset in CATALOG:
                expected["sample_rate"] = args["batch_size"] / CATALOG[spec.dataset].train
            else:
                self.unchecked.append(f"sample_rate: the size of {spec.dataset} is not known here")
        for name, value in expected.items():
            having = [event for event in events if name in event_to_json(event)]
            if len(having) != 1:
                continue  # no telling which event the hyper-parameter is of
            accounted = getattr(having[0], name)
            if not _agree(accounted, value, 1e-9):
                self.wrong.append(
                    f"{name} of {having[0].purpose!r} is {accounted}, but the hyper-parameters "
                    f"give {value:.6g}"
                )

    def _counters(self, events: tuple[Event, ...], where: str, counted: Any) -> None:
        made = [(each["purpose"], each["released"]) for each in counted]
        if [purpose for purpose, _ in made] != [event.purpose for event in events]:
            self.wrong.append(f"{where} counts releases of other events than were accounted for")
            return
        for event, (purpose, released) in zip(events, made, strict=True):
            if released != event.steps:
                self.wrong.append(
                    f"{event.steps} releases of {purpose!r} are accounted for, but {where} "
                    f"counts {released}"
                )

    def _work(self, events: tuple[Event, ...]) -> None:
        """Compare the gradient evaluations that the events need with what the record counts.

        An image in a batch is evaluated once or, with several copies, more often.
        """
        recorded = self.record.cost.get("private_evaluations")
        if recorded is None:
            return
        size = self.privacy.get("declared_size") or self._catalogued_size()
        training = [event for event in events if isinstance(event, DPSGDEvent)]
        if size is None:
            if training:
                self.unchecked.append(
                    f"private_evaluations: the size of {self.spec.dataset} is not known here"
                )
        else:
            needed = sum(event.steps * math.floor(event.sample_rate * size) for event in training)
            if recorded < needed:
                self.wrong.append(
                    f"private_evaluations is {recorded:,}, but the events are of at least "
                    f"{needed:,} gradient evaluations"
                )
        allowed = self.spec.compute.get("private_evaluations", math.inf)
        if recorded > allowed:
            self.wrong.append(
                f"private_evaluations is {recorded:,}, over the {allowed:,} that profile "
                f"{self.spec.profile} allows"
            )

    def _catalogued_size(self) -> int | None:
        found = CATALOG.get(self.spec.dataset)
        return found.train if found else None

    def artifacts(self) -> None:
        """Compare the files beside the record with their hashes, and counters with events."""
        artifacts, missing = self.record.artifacts, []
        if self.privacy and RELEASES not in artifacts:
            self.wrong.append(f"there is no hash of {RELEASES}")
        for name, expected in artifacts.items():
            file = self.folder / name
            if file.is_symlink():
                self.wrong.append(f"{name} is a link to a file elsewhere")
            elif not file.is_file():
                missing.append(name)
            elif sha256(file) != expected:
                self.wrong.append(f"{name} is not the file that the run wrote: its hash differs")
        if missing:
            self.unchecked.append(f"{', '.join(missing)}: not beside the record")
        if self.events is not None and RELEASES in artifacts and RELEASES not in missing:
            try:
                counted = parse_json(read_regular(self.folder / RELEASES, LARGEST))
                self._counters(self.events, RELEASES, counted)
            except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
                self.wrong.append(f"{RELEASES} cannot be read: {described(error)}")


def _agree(first: float | None, second: float | None, tolerance: float) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=tolerance)


def _number(check: dict[str, Any]) -> float | None:
    return None if check["epsilon"] is None else float(check["epsilon"])


def _said(check: dict[str, Any]) -> str:
    number = _number(check)
    return f"nothing ({check['reason']})" if number is None else f"{number:.6g}"
