"""States survive being stored, and nothing else does."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from dpbench.core.state import from_bytes, plain, to_bytes
from tests.support.digits import Bomb


def test_tensors_and_plain_values_come_back_as_they_were() -> None:
    state = {
        "none": None,
        "values": [True, 3, 2.5, "text", (1, 2)],
        "module": nn.Linear(2, 1).state_dict(),
        "tensors": {"half": torch.ones(2, dtype=torch.bfloat16), "empty": torch.empty(0, 3)},
    }
    again = from_bytes(to_bytes(plain(state)))
    assert (again["none"], again["values"]) == (None, state["values"])
    assert torch.equal(again["module"]["weight"], state["module"]["weight"])  # type: ignore[index]
    assert again["tensors"]["half"].dtype == torch.bfloat16
    assert again["tensors"]["empty"].shape == (0, 3)
    assert type(again["module"]) is dict and not again["module"]["weight"].requires_grad


def test_of_a_tensor_that_is_a_view_nothing_else_is_stored() -> None:
    images = torch.arange(100_000.0)
    content = to_bytes(plain({"few": images[:5], "row": torch.eye(3).T[0]}))
    assert len(content) < 5000
    assert from_bytes(content)["row"].is_contiguous()


def test_what_is_stored_depends_on_the_content_alone() -> None:
    assert to_bytes({"x": torch.ones(3)}) == to_bytes({"x": torch.ones(3)})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (nn.Linear(1, 1), "Linear"),
        (lambda: None, "function"),
        ({1, 2}, "set"),
        (b"bytes", "bytes"),
        (Path("file"), "PosixPath"),
        (OrderedDict[str, object](x=object()), "object"),
        (torch.zeros(2, device="meta"), "Tensor"),
        (torch.eye(2).to_sparse(), "Tensor"),
        (type("Sub", (torch.Tensor,), {})(), "Sub"),
        (type("Text", (str,), {})("x"), "Text"),
    ],
)
def test_anything_else_is_refused_with_its_place(value: object, kind: str) -> None:
    with pytest.raises(TypeError, match=rf"^state\['a'\]\[0\].* is of type {kind}, and"):
        plain({"a": [value]})


def test_nothing_is_executed_by_loading(tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "exploded")
    for content in (to_bytes({"x": bomb}), pickle.dumps(bomb, protocol=2), b"", b"junk" * 100):
        with pytest.raises(ValueError):
            from_bytes(content)
    assert not (tmp_path / "exploded").exists()
