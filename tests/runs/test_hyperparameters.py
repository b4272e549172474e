from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal, Optional, get_type_hints

import pytest

from dpbench.api.method import Preset
from dpbench.core.errors import UserError
from dpbench.core.registry import entries, load
from dpbench.runs.hyperparameters import Resolved, parse, resolve


@dataclass(frozen=True)
class Method:
    summary: ClassVar[str] = ""
    private: ClassVar[bool] = True
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("paper", "table 1", {"steps": 10}, datasets=("mnist",), epsilons=(0.0, 1.0)),
        Preset("paper", "table 2", {"steps": 20}, datasets=("mnist",), epsilons=(1.0, math.inf)),
        Preset("smoke", "small", {"steps": 1}),
    )

    steps: int = 100
    rate: float = 0.5
    widths: tuple[int, ...] = (1, 2)


def resolved(profile: str, dataset: str, epsilon: float, *assignments: str) -> Resolved:
    return resolve(Method, "method", profile, dataset, epsilon, assignments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", int, 3),
        ("-3", int, -3),
        ("1e-3", float, 0.001),
        ("-inf", float, -math.inf),
        ("true", bool, True),
        ("False", bool, False),
        ("a=b", str, "a=b"),
        ("heun", Literal["ddim", "heun"], "heun"),
        ("2", Literal[1, 2], 2),
        ("1,2,3", tuple[int, ...], (1, 2, 3)),
        ("(1, 2)", tuple[int, ...], (1, 2)),
        ("7,", tuple[int, ...], (7,)),
        ("", tuple[int, ...], ()),
        ("none", int | None, None),
        ("4", int | None, 4),
        ("none", str | None, None),
        ("none", str, "none"),
        ("3", str, "3"),
        ("3", float, 3.0),
        ("b", Literal["a"] | Literal["b"], "b"),
        ("1,2", tuple[float, ...] | None, (1.0, 2.0)),
        ("4", Optional[int], 4),  # noqa: UP045 (third parties may write it so)
    ],
)
def test_text_becomes_a_value_of_the_fields_type(text: str, annotation: Any, value: Any) -> None:
    parsed = parse(text, annotation, "--set field")
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "expected"),
    [
        ("1.5", int, "a whole number, got '1.5'"),
        ("", int, "a whole number, got ''"),
        ("many", float, "a number, got 'many'"),
        ("nan", float, "a number, got 'nan'"),
        ("yes", bool, "true or false, got 'yes'"),
        ("euler", Literal["ddim", "heun"], "one of ddim, heun, got 'euler'"),
        ("1,x", tuple[int, ...], "a whole number, got 'x'"),
        ("x", int | None, "a whole number, got 'x'"),
        ("1.0", int, "a whole number, got '1.0'"),
        ("true", int, "a whole number, got 'true'"),
        ("1", bool, "true or false, got '1'"),
        ("nan", tuple[float, ...], "a number, got 'nan'"),
        ("c", Literal["a"] | Literal["b"], "one of a, b, got 'c'"),
    ],
)
def test_text_that_is_no_such_value_is_refused(text: str, annotation: Any, expected: str) -> None:
    with pytest.raises(UserError, match=r"^--set field takes ") as refused:
        parse(text, annotation, "--set field")
    assert str(refused.value).endswith(expected)


@pytest.mark.parametrize("name", entries("method"))
def test_every_value_of_a_method_survives_being_written_as_text(name: str) -> None:
    method = load("method", name)
    hints = get_type_hints(method)
    values = [{each.name: each.default for each in fields(method) if each.init}]
    for given in (*values, *(preset.values for preset in method.presets)):
        for field, value in given.items():
            if value is not MISSING:
                parsed = parse(str(value), hints[field], f"--set {field}")
                assert parsed == value, field
                assert type(parsed) is type(value) or isinstance(parsed, float), field


def test_the_preset_is_that_of_the_profile_the_data_set_and_epsilon() -> None:
    assert resolved("paper", "mnist", 1.0).arguments["steps"] == 10
    assert resolved("paper", "mnist", 1.1).source == "table 2"
    assert resolved("smoke", "anything", math.inf).arguments["steps"] == 1


def test_values_of_a_preset_are_known_as_such_until_they_are_set_by_hand() -> None:
    assert resolved("smoke", "mnist", 1.0, "rate=0.1").from_preset == ("steps",)
    assert resolved("smoke", "mnist", 1.0, "steps=3").from_preset == ()


def test_values_by_hand_win_and_are_known_as_such() -> None:
    chosen = resolved("smoke", "mnist", 1.0, "widths=3", "steps=7", "steps=8")
    assert chosen.arguments == {"steps": 8, "rate": 0.5, "widths": (3,)}
    assert chosen.by_hand == ("widths", "steps")
    assert chosen.method == Method(steps=8, widths=(3,))
    assert resolved("smoke", "mnist", 1.0).by_hand == ()


@pytest.mark.parametrize(
    ("profile", "dataset", "assignments", "message"),
    [
        (
            "paper",
            "digits",
            (),
            r"no preset for digits at profile paper: there are paper \(mnist\)",
        ),
        ("laptop", "mnist", (), "no preset for mnist at profile laptop"),
        ("smoke", "mnist", ("step=1",), "no hyper-parameter 'step'. Did you mean 'steps'"),
        ("smoke", "mnist", ("zzz=1",), "It has steps, rate, widths"),
        ("smoke", "mnist", ("summary=1",), "no hyper-parameter 'summary'"),
        ("smoke", "mnist", ("steps",), "takes name=value, got 'steps'"),
    ],
)
def test_what_cannot_be_resolved_is_a_mistake(
    profile: str, dataset: str, assignments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        resolved(profile, dataset, 1.0, *assignments)


PUBLISHED = ("dp-ddpm", "dpdm", "dpsyngen", "dpsyngen-cleaning", "dpsyngen-coarse")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_papers_algorithm_is_one_option_away(name: str) -> None:
    kind = load("method", name)
    ours = resolve(kind, name, "laptop", "fashionmnist", 10.0, ())
    theirs = resolve(kind, name, "laptop", "fashionmnist", 10.0, (), published=True)
    assert ("class centres" if name == "dpdm" else "class statistics") in ours.departures
    assert theirs.departures == theirs.by_hand == ()
    differing = {
        field for field in ours.arguments if ours.arguments[field] != theirs.arguments[field]
    }
    assert differing <= {each.field for each in kind.departures}, "sizes are no departures"
    of_paper = resolve(kind, name, "paper", "fashionmnist", 10.0, ())
    assert of_paper.departures == ()


def test_an_ingredient_of_ours_by_hand_is_one_too() -> None:
    kind = load("method", "dpdm")
    by_hand = ("centre_learning_rate=0.01",)
    found = resolve(kind, "dpdm", "laptop", "fashionmnist", 10.0, by_hand, published=True)
    assert found.departures == ("class centres",)


def test_methods_of_our_own_depart_from_no_paper() -> None:
    for name in set(entries("method")) - set(PUBLISHED):
        found = resolve(load("method", name), name, "laptop", "fashionmnist", 10.0, ())
        assert found.departures == (), name
