"""A step shared out over ranks is the step of one process: same batch, copies, noise, divisor."""

from __future__ import annotations

import pytest
import torch

from dpbench.parallel.ranks import Ranks
from dpbench.privacy import dpsgd
from tests.support import broken
from tests.support.checks import Detected
from tests.support.checks.ranks import check_ranks, released
from tests.support.private import KEY


def test_any_number_of_ranks_releases_what_one_process_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_ranks(monkeypatch)


@pytest.mark.parametrize(
    "name, twin",
    [
        ("gradient_sum", broken.ranks.keeps_its_share),
        ("gradient_sum", broken.ranks.draws_alike_on_every_rank),
        ("gradient_sum", broken.ranks.samples_on_every_rank),
        ("gradient_sum", broken.ranks.divides_by_its_share),
        ("gaussian_noise", broken.ranks.of_every_rank),
        ("gaussian_noise", broken.ranks.of_its_own),
        ("gaussian_noise", broken.ranks.of_its_own_added_up),
        ("drawn_copies", broken.clipping.draws_one_after_another),
    ],
)
def test_comparing_ranks_with_one_process_catches(
    name: str, twin: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpsgd, name, twin)
    with pytest.raises(Detected):
        check_ranks(monkeypatch)


def test_it_also_catches_ranks_without_a_common_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_its_own_key(ranks: Ranks) -> torch.Tensor:
        return released(ranks, bytes([ranks.rank]) + KEY[1:])

    with pytest.raises(Detected):
        check_ranks(monkeypatch, with_its_own_key)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 100])
def test_shares_are_disjoint_even_and_whole(size: int, count: int) -> None:
    shares = [Ranks(rank, size).share(count) for rank in range(size)]
    assert [place for share in shares for place in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
