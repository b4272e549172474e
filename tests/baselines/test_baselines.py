"""What the baselines promise beyond the contract that every method keeps (``test_methods``)."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its customary name)

from dpbench.api.evaluator import Need
from dpbench.api.method import RunContext
from dpbench.api.profiles import SMOKE
from dpbench.baselines._classification import Classification
from dpbench.baselines._networks import NETWORKS, StandardisedConvolution, wide_resnet
from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec, Splits
from dpbench.core.progress import Silent
from dpbench.core.registry import entries, load
from dpbench.core.streams import Streams, reproducible_key
from dpbench.data.catalog import CATALOG
from dpbench.data.load import load as load_dataset
from dpbench.generators._matching import fourier_features
from dpbench.generators.diffusion.model import pick
from dpbench.generators.diffusion.networks.unet import UNetSettings
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.clipping import engine
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo, by_class
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.request import RunRequest, plan, private_set_info
from tests.support.command import Command
from tests.support.private import handle

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
    return float(by_class(features, labels, INFO.classes).norm(dim=1).max())


def test_no_image_adds_more_than_the_clipping_norm_to_the_mean_embedding() -> None:
    images = digits().train.pixels.flatten(1).float() / 255
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
        plan(RunRequest("nonprivate", "digits", 1.0, profile="smoke"))
    method = preset("nonprivate", "smoke", "digits")
    private = handle(digits().train, PrivacyLedger(PrivacyBudget(1.0)))
    run = RunContext(SMOKE, torch.device("cpu"), Streams(0), Silent(), tmp_path)
    with pytest.raises(UserError, match="run it with --eps inf"):
        method.fit(private, run)


def test_nonprivate_has_no_clipping_norm_to_set() -> None:
    with pytest.raises(UserError, match="nonprivate has no hyper-parameter 'clipping_norm'"):
        plan(RunRequest("nonprivate", "digits", settings=("clipping_norm=2",)))


def test_nonprivate_takes_the_network_and_compute_of_dpdm() -> None:
    for profile in ("laptop", "paper"):
        own, dpdm = (preset(name, profile, "fashionmnist") for name in ("nonprivate", "dpdm"))
        assert pick(UNetSettings, own) == pick(UNetSettings, dpdm)
        if profile == "paper":
            info, budget = private_set_info(CATALOG["fashionmnist"]), PrivacyBudget(math.inf)
            spent = [each.plan(info, budget).evaluations(private=True) for each in (own, dpdm)]
            assert spent[0] == spent[1]


# The classifier on real images.

RUN = ("run", "--dataset", "digits", "--profile", "smoke")


def measurements(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "record.json").read_text())
    return {row["metric"]: row for row in record["measurements"]}


def test_dp_classifier_learns_the_digits(tmp_path: Path) -> None:
    predictor = fitted_without_noise("dp-classifier", tmp_path, "steps=60")
    test = digits().test
    assert (predictor.predict(test.pixels).argmax(1) == test.labels).float().mean() > 0.7


def test_a_prediction_does_not_depend_on_the_other_images(tmp_path: Path) -> None:
    predictor = fitted_without_noise("dp-classifier", tmp_path, "steps=1")
    pixels = digits().test.pixels
    together, alone = predictor.predict(pixels)[:3], predictor.predict(pixels[:3])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 16, 18)])
def test_classifiers_take_images_of_many_sizes(network: str, shape: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        model = NETWORKS[network](ImageSpec(*shape), 7)
        assert model(torch.zeros(2, *shape)).shape == (2, 7)


def test_the_cnn_says_which_images_are_too_small_for_it() -> None:
    info = PrivateSetInfo("small", ImageSpec(1, 12, 20), 10, 1000)
    method = preset("dp-classifier", "smoke", "digits")
    with pytest.raises(UserError, match="at least 16 pixels a side: --set network=wrn-16-4"):
        method.plan(info, PrivacyBudget(1.0))


def test_wide_resnets_have_the_size_that_their_names_say() -> None:
    # 2.75M parameters without gains and the biases of convolutions, for 10 classes and 3 channels
    with torch.device("meta"):
        model = NETWORKS["wrn-16-4"](ImageSpec(3, 32, 32), 10)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(2.75e6, rel=0.01)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 1 + 12
    assert sum(m.kernel_size == (1, 1) for m in convolutions) == 3


def test_the_kernels_of_a_standardised_convolution_are_standardised() -> None:
    layer = StandardisedConvolution(3, 4, 3)
    with torch.no_grad():
        layer.weight.mul_(7).add_(5)
        # the response to a pixel in each channel is the kernel, mirrored
        impulses = torch.eye(3).view(3, 3, 1, 1) * F.pad(torch.ones(1, 1, 1, 1), (2, 2, 2, 2))
        kernel = layer(impulses)[:, :, 1:4, 1:4].transpose(0, 1).flatten(1)
    assert kernel.mean(1).abs().max() < 1e-5
    assert kernel.square().sum(1).tolist() == pytest.approx([1.0] * 4, rel=1e-3)


def test_wide_resnets_can_be_clipped_example_by_example() -> None:
    model = wide_resnet(10, 1)(ImageSpec(1, 8, 8), 3)
    images = Images(torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8), torch.arange(5) % 3)
    objective = Classification(1, mirror=False)
    copies = objective.draw(images.pixels, images.labels, torch.Generator())
    fast, plain = (engine(name)(model, objective, copies, 0.1) for name in ("vmap", "loop"))
    for name, gradient in plain.items():
        assert torch.allclose(fast[name], gradient, atol=1e-4), name


@pytest.mark.parametrize("dataset", ["mnist", "fashionmnist"])
def test_the_paper_preset_of_dp_classifier_spends_ten_at_its_noise_multiplier(dataset: str) -> None:
    method = preset("dp-classifier", "paper", dataset, 10.0)
    assert (method.network, method.batch_size, method.clipping_norm) == ("wrn-16-4", 16_384, 1.0)
    assert (method.learning_rate, method.average_decay) == (4.0, 0.9999)
    (event,) = method.plan(private_set_info(CATALOG[dataset]), PrivacyBudget(10.0)).events
    assert event.noise_multiplier == pytest.approx(3.0, abs=2e-3)
    stated = replace(event, noise_multiplier=3.0)
    assert epsilon([stated], 1e-5) <= 10 < epsilon([replace(stated, steps=449)], 1e-5)


def test_the_record_of_a_classifier_has_its_accuracy_and_reasons_for_the_rest(
    dpbench: Command, tmp_path: Path
) -> None:
    # a budget this small is cheap to account for
    command = (*RUN, "--method", "dp-classifier", "--eps", 0.001, "--out", tmp_path / "run")
    ended = dpbench(*command, "--all")
    assert ended.code == 0
    assert "dp-classifier gives a classifier, not images" in ended.out and "grid" not in ended.out
    files = {file.name for file in (tmp_path / "run").iterdir()}
    kept = "evaluation-cas-predictor.npz"
    assert files == {"record.json", "checkpoint.pt", "releases.json", kept}
    rows = measurements(tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    method = preset("dp-classifier", "smoke", "digits")
    predictor = method.restore(state, INFO, torch.device("cpu"))
    test = digits().test
    accuracy = (predictor.predict(test.pixels).argmax(1) == test.labels).double().mean().item()
    assert rows["cas_predictor"]["value"] == pytest.approx(100 * accuracy)
    assert (rows["cas_predictor"]["n_real"], rows["cas_predictor"]["split"]) == (360, "test")
    assert rows["audit_alarms"]["value"] == 0
    others = [row for name, row in rows.items() if name[:3] in ("cas", "fd_", "fid")]
    reasons = {row["reason"] for row in others if row["metric"] != "cas_predictor"}
    assert reasons == {"dp-classifier gives a classifier, not images"}
    assert "complete already" in dpbench(*command).err
    assert dpbench("verify", tmp_path / "run").code == 0


@pytest.mark.parametrize("name", sorted(entries("evaluator")))
def test_every_evaluator_says_whether_it_looks_at_samples(name: str) -> None:
    """Else a classifier's run would have it look at no images at all."""
    needs = load("evaluator", name).needs
    assert needs & {Need.SAMPLES, Need.PREDICTOR, Need.MECHANISM}


def test_a_run_with_samples_has_no_row_of_a_classifier(dpbench: Command, tmp_path: Path) -> None:
    asked = ("--evaluators", "audit,cas-predictor", "--out", tmp_path / "run")
    assert dpbench(*RUN, "--method", "class-mean", *asked).code == 0
    rows = measurements(tmp_path / "run")
    assert "audit_alarms" in rows and "cas_predictor" not in rows
