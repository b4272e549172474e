"""What the baselines promise beyond the contract that every method keeps (``test_methods``)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from _private import handle
from torch import Tensor

from dpbench.baselines.dp_merf import by_class, fourier_features
from dpbench.data.catalog import CATALOG
from dpbench.data.load import load as load_dataset
from dpbench.errors import UserError
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.private_images import PrivateImages
from dpbench.profiles import SMOKE
from dpbench.progress import Silent
from dpbench.protocols import RunContext
from dpbench.registry import load
from dpbench.run import Request, plan, private_set_info
from dpbench.settings import resolve
from dpbench.streams import Streams, reproducible_key
from dpbench.types import Splits

INFO = private_set_info(CATALOG["digits"])


def digits() -> Splits:
    return load_dataset("digits", None, Silent()).splits


def fitted_without_noise(name: str, folder: Path, *settings: str) -> Any:
    """What a method learns from the digits where the budget is unlimited."""
    method = resolve(load("method", name), name, "smoke", "digits", math.inf, settings).method
    ledger = PrivacyLedger(PrivacyBudget(math.inf))
    private = PrivateImages(digits().train, INFO, ledger, Streams(0, reproducible_key(0)))
    return method.fit(private, RunContext(SMOKE, torch.device("cpu"), Streams(0), Silent(), folder))


def preset(name: str, profile: str, dataset: str, epsilon: float = 1.0) -> Any:
    return resolve(load("method", name), name, profile, dataset, epsilon, ()).method


# DP-MERF.


def longest(features: Tensor) -> float:
    """The most that one image can add to the sum of features by class, as it is before clipping."""
    labels = torch.arange(len(features)) % INFO.classes
    return float(by_class(features, labels, INFO.classes).flatten(1).norm(dim=1).max())


def test_no_image_adds_more_than_the_clipping_norm_to_the_mean_embedding() -> None:
    images = digits().train.pixels.float() / 255
    frequencies = torch.randn(100, math.prod(INFO.spec.shape))
    assert longest(fourier_features(images, frequencies)) == pytest.approx(1, abs=1e-4)
    unnormalised = fourier_features(images, frequencies) * math.sqrt(len(frequencies))
    assert longest(unnormalised) > 9


@pytest.fixture(scope="module")
def dp_merf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("dp-merf")
    return fitted_without_noise("dp-merf", folder, "generator_steps=150")


def test_dp_merf_makes_images_of_their_class(dp_merf: Any) -> None:
    train = digits().train
    real = torch.stack([train.pixels[train.labels == c].float().mean(0) for c in range(10)])
    labels = torch.arange(200) % 10
    made = dp_merf.sample(labels, torch.Generator().manual_seed(0)).float()
    nearest = torch.cdist(made.flatten(1), real.flatten(1)).argmin(1)
    assert (nearest == labels).float().mean() > 0.6
    # and they are not all the same
    assert made[labels == 0].std(dim=0).mean() > 5


def test_an_image_of_dp_merf_does_not_depend_on_the_others_of_its_batch(dp_merf: Any) -> None:
    generator = dp_merf.generator
    codes, labels = torch.randn(20, generator.code_size), torch.arange(20) % 10
    together, alone = generator(codes, labels)[:3], generator(codes[:3], labels[:3])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("dataset, variance", [("mnist", 105), ("fashionmnist", 127)])
def test_dp_merf_has_the_values_of_its_published_code(dataset: str, variance: float) -> None:
    method = preset("dp-merf", "paper", dataset)
    assert method.kernel_variance * 28 * 28 == pytest.approx(variance)
    assert (method.features, method.code_size, method.generator_batch_size) == (10_000, 5, 100)
    assert method.generator_steps * method.generator_batch_size == 5 * 60_000
    assert (method.learning_rate, method.learning_rate_decay) == (0.01, 0.9)


# The diffusion model without privacy.


def test_nonprivate_refuses_a_finite_epsilon(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nonprivate is not private: it has no finite epsilon"):
        plan(Request("nonprivate", "digits", 1.0, profile="smoke"))
    method = preset("nonprivate", "smoke", "digits")
    private = handle(digits().train, PrivacyLedger(PrivacyBudget(1.0)))
    run = RunContext(SMOKE, torch.device("cpu"), Streams(0), Silent(), tmp_path)
    with pytest.raises(UserError, match="run it with --eps inf"):
        method.fit(private, run)


def test_nonprivate_has_no_clipping_norm_to_set() -> None:
    with pytest.raises(UserError, match="nonprivate has no hyper-parameter 'clipping_norm'"):
        plan(Request("nonprivate", "digits", settings=("clipping_norm=2",)))


def test_nonprivate_takes_the_network_and_compute_of_dpdm() -> None:
    for profile in ("laptop", "paper"):
        own, dpdm = (preset(name, profile, "fashionmnist") for name in ("nonprivate", "dpdm"))
        assert own._network() == dpdm._network()
        if profile == "paper":
            info, budget = private_set_info(CATALOG["fashionmnist"]), PrivacyBudget(math.inf)
            spent = [each.plan(info, budget).evaluations(private=True) for each in (own, dpdm)]
            assert spent[0] == spent[1]
