from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.profiles import LAPTOP, PAPER, SMOKE
from dpbench.core.images import Images, ImageSpec
from dpbench.core.metrics import Measurement
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.evaluators import cas
from dpbench.evaluators.cas import EVALUATOR
from dpbench.evaluators.classifiers.dpimagebench import dpimagebench_recipes, resnet, resnext
from dpbench.evaluators.classifiers.networks import dpdm_cnn, logistic_regression, mlp, small_cnn
from dpbench.evaluators.classifiers.prediction import accuracy, predict
from dpbench.evaluators.classifiers.recipe import Recipe, Sgd
from dpbench.evaluators.classifiers.training import _optimizer, train
from dpbench.evaluators.classifiers.wide_resnet import wide_resnet, wide_resnet_recipe
from dpbench.training.augmentation import Augmentation

CLASSIFIERS = ("cas_logreg", "cas_mlp", "cas_cnn")
CPU = torch.device("cpu")


def digits() -> tuple[Images, Images]:
    bundle = load_digits()
    pixels = (bundle.images * 15).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    images = Images(torch.from_numpy(pixels)[:, None], torch.from_numpy(bundle.target).long())
    return images[:1400], images[1400:]


TRAIN, TEST = digits()


def case(synthetic: Images, seed: int = 0, **changes: object) -> EvaluationContext:
    def open_real(need: Need) -> Images:
        assert need is Need.REAL_TEST
        return TEST

    context = EvaluationContext(
        dataset="digits",
        classes=10,
        synthetic=synthetic,
        open_real=open_real,
        profile=SMOKE,
        device=torch.device("cpu"),
        streams=Streams(seed),
        progress=Silent(),
        cache=Path("unused"),
    )
    return replace(context, **changes)


def rows(context: EvaluationContext) -> dict[str, Measurement]:
    return {row.metric: row for row in EVALUATOR().evaluate(context)}


def values(context: EvaluationContext) -> dict[str, float | None]:
    return {metric: row.value for metric, row in rows(context).items()}


def relabelled(share: float) -> Images:
    rng = torch.Generator().manual_seed(1)
    wrong = torch.rand(len(TRAIN), generator=rng) < share
    random = torch.randint(10, (len(TRAIN),), generator=rng)
    return Images(TRAIN.pixels, torch.where(wrong, random, TRAIN.labels))


class Kept:
    """What an evaluator gave to be kept."""

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[np.generic]] = {}

    def __call__(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self.arrays = dict(arrays)


KEPT = Kept()


@pytest.fixture(scope="module")
def on_real() -> dict[str, Measurement]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cas, "ENSEMBLED", ("smoke",))
        return rows(case(TRAIN, keep=KEPT))


@pytest.fixture
def small_wrn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The WRN and DPImageBench's classifiers of profile paper take days here."""
    small = Recipe("small", mlp, 13, True, 3e-4, 0)
    monkeypatch.setattr(cas, "wide_resnet_recipe", lambda dataset, channels: small)
    trio = dict.fromkeys(cas.DPIMAGEBENCH, small)
    monkeypatch.setattr(cas, "dpimagebench_recipes", lambda dataset, images: trio)


def test_real_images_score_high(on_real: dict[str, Measurement]) -> None:
    assert all(on_real[name].value > 80 for name in CLASSIFIERS), on_real
    assert on_real["cas_cnn"].value > 90


def test_the_mean_is_the_mean_of_the_three(on_real: dict[str, Measurement]) -> None:
    mean = sum(on_real[name].value for name in CLASSIFIERS) / 3
    assert on_real["cas_mean"].value == pytest.approx(mean)


def test_rows_are_declared_and_say_what_they_were_measured_on(
    on_real: dict[str, Measurement],
) -> None:
    specs = {spec.name: spec for spec in EVALUATOR.metrics}
    classes = {f"cas_cnn_class{label}" for label in range(10)}
    of_paper = {"cas_wrn", *cas.SELECTED, *(name for name in specs if "dpimagebench" in name)}
    assert on_real.keys() - classes == specs.keys() - of_paper - {"cas_cnn_class*"}
    assert classes < on_real.keys()
    for metric, row in on_real.items():
        spec = specs["cas_cnn_class*" if metric in classes else metric]
        assert (row.unit, row.higher_is_better) == (spec.unit, spec.higher_is_better)
        assert (row.n, row.split) == (1400, "test")
        assert metric in classes or row.n_real == len(TEST)
    assert on_real["cas_cnn"].extractor == "cnn16-32-64/sgd60"
    assert on_real["cas_cnn_ensemble"].extractor == "5xcnn16-32-64/sgd60"
    assert len({row.seed for row in on_real.values()}) == 4


def test_random_labels_score_near_chance() -> None:
    found = values(case(relabelled(1.0)))
    assert all(found[name] < 30 for name in CLASSIFIERS)


def test_wrong_labels_lower_the_score(on_real: dict[str, Measurement]) -> None:
    assert values(case(relabelled(0.7)))["cas_mean"] < on_real["cas_mean"].value - 2


def test_same_streams_give_the_same_scores_whatever_was_drawn_before(
    on_real: dict[str, Measurement],
) -> None:
    torch.rand(7)
    again = rows(case(TRAIN))
    del again["cas_cnn_ensemble"]
    assert again.items() <= on_real.items()


def test_other_seeds_give_other_scores(on_real: dict[str, Measurement]) -> None:
    other = rows(case(TRAIN, seed=1))
    assert any(other[name].value != on_real[name].value for name in CLASSIFIERS)


def test_global_random_numbers_and_threads_are_left_as_they_were() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    rows(case(TRAIN[:200]))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


class Log:
    """Progress that writes down what happens."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.announced = self.done = 0.0

    def advance(self, amount: float, note: str = "") -> None:
        self.done += amount
        self.events.append("step")

    def note(self, text: str) -> None:
        self.events.append(text)

    @contextmanager
    def task(self, label: str, total: float, unit: str, done: float = 0) -> Iterator[Log]:
        self.announced += total
        yield self


def test_the_test_split_is_opened_once_after_all_training() -> None:
    log = Log()

    def open_real(need: Need) -> Images:
        log.events.append("open")
        return TEST

    rows(case(TRAIN, progress=log, open_real=open_real))
    assert log.events == ["step"] * 180 + ["open"]
    assert log.done == log.announced


def test_a_class_that_is_alone_is_predicted_everywhere_and_flagged() -> None:
    threes = TRAIN[TRAIN.labels == 3]
    share = 100 * (TEST.labels == 3).double().mean().item()
    log = Log()
    found = values(case(threes, progress=log))
    assert found["cas_mlp"] == pytest.approx(share)
    assert found["cas_collapsed"] == 3
    assert found["cas_mean"] == pytest.approx(sum(found[name] for name in CLASSIFIERS) / 3)
    assert found["cas_cnn_class3"] == 100 and found["cas_cnn_class4"] == 0
    assert log.events[-1].endswith("cas_logreg, cas_mlp, cas_cnn")


def test_images_that_are_all_equal_are_scored() -> None:
    grey = Images(torch.full_like(TRAIN.pixels, 128), TRAIN.labels)
    found = values(case(grey))
    assert all(0 <= found[name] < 30 for name in CLASSIFIERS)


def test_a_single_image_is_scored() -> None:
    found = values(case(TRAIN[:1]))
    assert all(found[name] is not None for name in (*CLASSIFIERS, "cas_mean"))


# --- what is kept of each image, and what follows from it


def test_nothing_has_collapsed_on_real_images(on_real: dict[str, Measurement]) -> None:
    assert on_real["cas_collapsed"].value == 0


@pytest.mark.parametrize(
    ("predicted", "labels", "collapsed"),
    [
        ([0, 0, 0, 0], [0, 1, 0, 1], True),
        ([0, 1, 0, 0], [0, 1, 0, 1], False),
        ([0, 1, 2, 4], [0, 1, 2, 3], False),
        ([0, 1, 1, 1], [0, 1, 2, 3], True),
        ([0, 0, 0, 0], [0, 0, 0, 0], False),
    ],
)
def test_collapsed_means_at_most_half_the_classes(
    predicted: list[int], labels: list[int], collapsed: bool
) -> None:
    assert cas.is_collapsed(torch.tensor(predicted), torch.tensor(labels)) is collapsed


def wrong_in_kept(
    arrays: Mapping[str, NDArray[np.generic]], found: Mapping[str, Measurement]
) -> list[str]:
    """Metrics whose value is not what the kept predictions give for ``TEST`` in its order."""
    labels = TEST.labels.numpy()
    return [
        name
        for name, predicted in arrays.items()
        if name != "labels" and found[name].value != 100 * (predicted == labels).sum() / len(labels)
    ]


def test_kept_predictions_are_those_of_the_test_split_in_its_order(
    on_real: dict[str, Measurement],
) -> None:
    assert np.array_equal(KEPT.arrays["labels"], TEST.labels.numpy())
    assert KEPT.arrays.keys() == {*CLASSIFIERS, "cas_cnn_ensemble", "labels"}
    assert wrong_in_kept(KEPT.arrays, on_real) == []


def test_predictions_kept_in_another_order_would_be_caught(
    on_real: dict[str, Measurement],
) -> None:
    shuffled = {name: np.roll(array, 1) for name, array in KEPT.arrays.items()}
    assert wrong_in_kept(shuffled, on_real) == [*CLASSIFIERS, "cas_cnn_ensemble"]


def test_classes_and_interval_are_of_the_kept_predictions(
    on_real: dict[str, Measurement],
) -> None:
    predicted, labels = KEPT.arrays["cas_cnn"], KEPT.arrays["labels"]
    for label in range(10):
        row = on_real[f"cas_cnn_class{label}"]
        assert row.value == pytest.approx(100 * (predicted[labels == label] == label).mean())
        assert row.n_real == (labels == label).sum()
    score, n = on_real["cas_cnn"].value / 100, len(TEST)
    for end in ("cas_cnn_low", "cas_cnn_high"):
        share = on_real[end].value / 100
        # the score test holds at both ends, with equality
        assert abs(score - share) == pytest.approx(1.959964 * (share * (1 - share) / n) ** 0.5)
    assert on_real["cas_cnn_low"].value < 100 * score < on_real["cas_cnn_high"].value


def test_a_class_without_test_images_has_a_reason() -> None:
    test = TEST[TEST.labels != 9]
    found = rows(case(TRAIN[:200], open_real=lambda need: test))
    assert found["cas_cnn_class9"].value is None
    assert found["cas_cnn_class9"].reason == "no test image of this class"
    assert found["cas_cnn_class8"].value is not None


# --- the ensemble


def test_probabilities_are_averaged_and_not_logits_or_votes() -> None:
    sure, unsure = torch.tensor([[9.0, 0.0, -9.0]]), torch.tensor([[0.0, 0.3, 0.0]])
    assert cas.ensemble([unsure, unsure, sure]).tolist() == [0]
    far = torch.tensor([[0.0, 0.0, 50.0]])
    assert cas.ensemble([sure, sure, far]).tolist() == [0], "logits would give 2"


def by_hand(seed: int) -> list[int]:
    """What five CNNs, trained one by one, say together of ``TEST``."""
    recipe = cas.recipes("smoke", len(TRAIN), "digits", TRAIN.spec)["cas_cnn"]
    streams, total = Streams(seed), torch.zeros(len(TEST), 10)
    first = streams.seed("evaluation", "cas", "cas_cnn")
    others = [streams.seed("evaluation", "cas", "cas_cnn", "order", k) for k in (1, 2, 3, 4)]
    for order in (first, *others):
        network = train(recipe, TRAIN, 10, first, CPU, order=order)
        with torch.no_grad():
            total += network(TEST.pixels / 127.5 - 1).softmax(1)
    return total.argmax(1).tolist()


def test_the_ensemble_is_that_of_five_networks_and_not_five_times_one(
    on_real: dict[str, Measurement],
) -> None:
    expected = by_hand(0)
    assert KEPT.arrays["cas_cnn_ensemble"].tolist() == expected
    assert KEPT.arrays["cas_cnn"].tolist() != expected, "five times the first would pass"


def test_members_differ_in_the_order_of_minibatches_alone() -> None:
    recipe = Recipe("", small_cnn, 2, False, 0.1, 0)

    def weights(order: int, **changes: object) -> Tensor:
        network = train(replace(recipe, **changes), TRAIN[:300], 10, 7, CPU, order=order)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert torch.equal(weights(1, learning_rate=0.0), weights(2, learning_rate=0.0))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(weights(1), weights(1))


def test_laptop_says_that_an_ensemble_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    short = cas.recipes("smoke", len(TRAIN), "digits", TRAIN.spec)
    monkeypatch.setattr(cas, "recipes", lambda *_: short)
    found = rows(case(TRAIN[:200], profile=LAPTOP))
    assert found["cas_cnn_ensemble"].value is None
    assert found["cas_cnn_ensemble"].reason == "5 networks take too long for profile laptop"
    assert found["cas_cnn"].value is not None


# --- recipes of papers


def test_paper_has_the_classifiers_of_dpdm() -> None:
    spec = ImageSpec(1, 28, 28)
    assert [tuple(p.shape) for p in mlp(spec, 10).parameters() if p.ndim == 2] == [
        (100, 784),
        (10, 100),
    ]
    assert [tuple(p.shape) for p in dpdm_cnn(spec, 10).parameters() if p.ndim == 2] == [
        (128, 1152),
        (10, 128),
    ]


@pytest.mark.usefixtures("small_wrn")
def test_paper_tells_why_small_images_have_no_cnn() -> None:
    found = rows(case(TRAIN[:32], profile=PAPER))
    assert found["cas_cnn"].value is None
    assert "18 pixels" in found["cas_cnn"].reason
    for metric in ("cas_mean", "cas_cnn_low", "cas_cnn_ensemble", "cas_cnn_class*"):
        assert found[metric].value is None
    assert "18 pixels" in found["cas_cnn_selected"].reason
    assert found["cas_mlp"].value is not None and found["cas_mlp_selected"].value is not None
    assert found["cas_dpimagebench_mean"].value is not None


@pytest.mark.usefixtures("small_wrn")
def test_paper_measures_all_classifiers_on_images_of_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cas, "MEMBERS", 2)
    test = Images(torch.zeros(20, 1, 28, 28, dtype=torch.uint8), torch.zeros(20).long())
    synthetic = Images(torch.zeros(32, 1, 28, 28, dtype=torch.uint8), torch.zeros(32).long())
    context = case(synthetic, profile=PAPER, open_real=lambda need: test)
    found = values(context)
    for metric in (*CLASSIFIERS, "cas_wrn", "cas_mean", "cas_cnn_ensemble", "cas_cnn_class0"):
        assert found[metric] == 100
    for metric in (*cas.SELECTED, *cas.DPIMAGEBENCH, "cas_dpimagebench_mean"):
        assert found[metric] == 100


# --- the epoch selected on held-out synthetic images

LEARNING, HELD_OUT = relabelled(0.5)[:90], relabelled(0.5)[90:130]
EPOCHS = 12
# an epoch ends within every second or third step of 40 images
BY_EPOCH = Recipe("", mlp, -(-EPOCHS * 90 // 40), True, 0.02, 0, batch=40)


def after_epochs() -> list[torch.nn.Module]:
    """What training without selection gives at the end of each epoch."""
    steps = [-(-epoch * 90 // 40) for epoch in range(1, EPOCHS + 1)]
    return [train(replace(BY_EPOCH, steps=each), LEARNING, 10, 0, CPU) for each in steps]


def weights_of(network: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_the_epoch_is_the_best_on_held_out_images() -> None:
    epochs = after_epochs()
    best, best_on_test = (
        int(np.argmax([accuracy(each, part, CPU) for each in epochs])) for part in (HELD_OUT, TEST)
    )
    selected = weights_of(train(BY_EPOCH, LEARNING, 10, 0, CPU, held_out=HELD_OUT))
    same = [torch.equal(weights_of(each), selected) for each in epochs]
    assert same == [epoch == best for epoch in range(EPOCHS)]
    # the broken twins: the last epoch, and the one that is best on the test split
    assert best not in (EPOCHS - 1, best_on_test)


def test_of_equal_epochs_the_earliest_is_kept_with_its_statistics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached = iter([10.0, 30.0, 20.0, 30.0])
    monkeypatch.setattr(
        "dpbench.evaluators.classifiers.training.accuracy", lambda *_: next(reached)
    )
    recipe = replace(BY_EPOCH, network=small_cnn, steps=9)
    network = train(recipe, LEARNING, 10, 0, CPU, held_out=HELD_OUT)
    assert next(reached, None) is None, "four epochs, each looked at once"
    steps = {int(m.num_batches_tracked) for m in network.modules() if hasattr(m, "momentum")}
    assert steps == {5}, "of 40 images each, to the end of the second epoch of 90"


def test_an_average_over_epochs_has_no_best_one() -> None:
    with pytest.raises(ValueError, match="averages"):
        train(replace(BY_EPOCH, average=0.9), LEARNING, 10, 0, CPU, held_out=HELD_OUT)


class SpiedTrain:
    """``train`` that writes down what each metric's network learns from and is selected by."""

    def __init__(self) -> None:
        self.seen: dict[str, list[set[bytes] | None]] = {}

    def __call__(self, recipe: Recipe, images: Images, *others: object) -> torch.nn.Module:
        parts = (images, others[-1])
        self.seen[recipe.id] = [
            {image.numpy().tobytes() for image in part.pixels} if isinstance(part, Images) else None
            for part in parts
        ]
        return train(recipe, images, *others)  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_wrn")
def test_selection_sees_a_tenth_of_the_synthetic_images_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spied, log = SpiedTrain(), Log()
    monkeypatch.setattr(cas, "train", spied)

    def open_real(need: Need) -> Images:
        log.events.append("open")
        return TEST

    synthetic = TRAIN[:100]
    images = {image.numpy().tobytes() for image in synthetic.pixels}
    assert len(images) == 100
    found = rows(case(synthetic, profile=PAPER, open_real=open_real, progress=log))
    assert log.events.count("open") == 1 and log.events.index("open") > log.events.index("step")
    assert "step" not in log.events[log.events.index("open") :]
    assert log.done == log.announced
    for name in ("cas_logreg", "cas_mlp"):
        learnt, held_out = spied.seen[found[f"{name}_selected"].extractor]
        assert learnt is not None and held_out is not None
        assert (len(learnt), len(held_out)) == (90, 10)
        assert learnt | held_out == images and not learnt & held_out
        assert spied.seen[found[name].extractor] == [images, None]


@pytest.mark.usefixtures("small_wrn")
def test_selected_ones_stand_beside_the_others_and_in_no_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cas, "MEMBERS", 1)
    monkeypatch.setattr(cas, "dpdm_cnn", mlp)  # fits digits, and is faster
    monkeypatch.setattr(cas, "DPDM_CNN_SMALLEST_SIDE", 1)
    found = rows(case(relabelled(0.3)[:60], profile=PAPER))
    assert found["cas_mean"].value == pytest.approx(sum(found[n].value for n in CLASSIFIERS) / 3)
    assert found["cas_mean"].value != pytest.approx(sum(found[n].value for n in cas.SELECTED) / 3)
    specs = {spec.name: spec for spec in EVALUATOR.metrics}
    for name, selected in zip(CLASSIFIERS, cas.SELECTED, strict=True):
        row, spec = found[selected], specs[selected]
        assert row.extractor == f"{found[name].extractor}-best-on-synthetic"
        assert (row.unit, row.higher_is_better) == (spec.unit, spec.higher_is_better) == ("%", True)
        assert (row.n, row.n_real, row.split) == (60, len(TEST), "test")
        assert row.seed != found[name].seed


@pytest.mark.usefixtures("small_wrn")
def test_selection_follows_the_seed() -> None:
    first, again, other = (
        values(case(relabelled(0.3)[:60], seed, profile=PAPER)) for seed in (0, 0, 1)
    )
    assert first == again
    assert any(first[name] != other[name] for name in cas.SELECTED)


@pytest.mark.usefixtures("small_wrn")
def test_fewer_than_ten_images_cannot_select() -> None:
    found = rows(case(TRAIN[:9], profile=PAPER))
    assert found["cas_mlp"].value is not None
    assert "at least 10 images" in found["cas_mlp_selected"].reason


@pytest.mark.parametrize(
    ("depth", "width", "channels", "parameters"),
    [
        # of the code of Zagoruyko and Komodakis: 8.9M and 36.5M in their table 4
        (40, 4, 3, 8_949_210),
        (28, 10, 3, 36_479_194),
    ],
)
def test_wide_resnets_are_as_large_as_published(
    depth: int, width: int, channels: int, parameters: int
) -> None:
    with torch.device("meta"):
        network = wide_resnet(depth, width)(ImageSpec(channels, 32, 32), 10)
        assert network(torch.zeros(2, channels, 32, 32)).shape == (2, 10)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == depth - 4 + 1 + 3


@pytest.mark.parametrize(
    ("dataset", "channels", "expected"),
    [
        ("mnist", 1, (10_000, 64, 5e-4, 0.05, "constant", Augmentation(crop=4), 1)),
        ("fashionmnist", 1, (10_000, 64, 5e-4, 0.05, "constant", Augmentation(crop=4), 1)),
        ("cifar10", 3, (20_000, 4096, 5e-4, 0.0, "cosine", Augmentation(True, 4, 0.2), 16)),
        ("camelyon17", 3, (4_000, 512, 1e-5, 0.0, "cosine", Augmentation(True, 4, 0.2), 16)),
    ],
)
def test_the_wide_resnet_is_trained_by_table_4(
    dataset: str, channels: int, expected: tuple[object, ...]
) -> None:
    recipe = wide_resnet_recipe(dataset, channels)
    assert (
        *(recipe.steps, recipe.batch, recipe.sgd.weight_decay, recipe.label_smoothing),
        *(recipe.sgd.schedule, recipe.augmentation, recipe.copies),
    ) == expected
    assert (recipe.adam, recipe.learning_rate, recipe.average) == (False, 0.1, 0.9999)
    with torch.device("meta"):
        network = recipe.network(ImageSpec(channels, 32, 32), 10)
    dropout = {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropout == {0.5 if channels == 1 else 0.0}


@pytest.mark.parametrize(
    ("build", "channels", "parameters", "convolutions"),
    [
        # of DPImageBench's code; He et al. 2016, table 6, have 1.7M and skips without weights
        (resnet(110), 3, 1_730_714, 109 + 2),
        (resnet(164), 3, 2_605_658, 163 + 2),
        # Xie et al. 2017, table 7: 34.4M
        (resnext(29, 4), 3, 34_426_698, 28 + 3),
    ],
)
def test_classifiers_of_dpimagebench_are_as_large_as_published(
    build: Callable[[ImageSpec, int], torch.nn.Module],
    channels: int,
    parameters: int,
    convolutions: int,
) -> None:
    with torch.device("meta"):
        network = build(ImageSpec(channels, 32, 32), 10)
        assert network(torch.zeros(2, channels, 32, 32)).shape == (2, 10)
    assert sum(p.numel() for p in network.parameters()) == parameters
    found = sum(isinstance(module, torch.nn.Conv2d) for module in network.modules())
    assert found == convolutions


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("fashionmnist", (11_719, 256, True, 0.01, (0.4, 0.8))),
        ("cifar10", (95_239, 126, False, 0.1, (0.3, 0.6, 0.9))),
    ],
)
def test_classifiers_of_dpimagebench_are_trained_as_there(
    dataset: str, expected: tuple[object, ...]
) -> None:
    found = dpimagebench_recipes(dataset, 60_000)
    assert tuple(found) == cas.DPIMAGEBENCH
    for recipe in found.values():
        steps, batch, adam, rate, drops = expected
        assert recipe.steps == pytest.approx(steps, abs=1)
        assert (recipe.batch, recipe.adam, recipe.learning_rate) == (batch, adam, rate)
        assert (recipe.drops, recipe.average, recipe.copies) == (drops, 0.9999, 1)
        assert (recipe.sgd.nesterov, recipe.sgd.momentum) == (False, 0.9)
        assert (recipe.sgd.weight_decay, recipe.sgd.schedule) == (5e-4, "constant")


@pytest.mark.parametrize("build", [resnet(8), resnext(11, 1)])
def test_classifiers_of_dpimagebench_learn_in_a_step(
    build: Callable[[ImageSpec, int], torch.nn.Module],
) -> None:
    recipe = replace(dpimagebench_recipes("digits", 8)[cas.DPIMAGEBENCH[0]], network=build)
    few = Images(TRAIN.pixels[:8, :, ::2, ::2], TRAIN.labels[:8])
    one_step = replace(recipe, steps=1, batch=8, average=0.0)

    def weights(**changes: object) -> Tensor:
        network = train(replace(one_step, **changes), few, 10, 0, CPU)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert weights().isfinite().all()
    assert not torch.equal(weights(), weights(learning_rate=0.0))


@pytest.mark.parametrize("adam", [True, False])
def test_the_learning_rate_drops_to_a_fifth_where_it_should(adam: bool) -> None:
    recipe = Recipe("", mlp, 10, adam, 0.5, 0, sgd=Sgd(schedule="constant"), drops=(0.4, 0.8))
    optimizer, schedule = _optimizer(recipe, mlp(ImageSpec(1, 8, 8), 10))
    rates = []
    for _ in range(recipe.steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5] * 4 + [0.1] * 4 + [0.02] * 2)


def test_an_average_of_weights_has_statistics_of_its_own() -> None:
    recipe = Recipe("", small_cnn, 40, False, 0.05, 0, average=0.9)
    network = train(recipe, TRAIN, 10, 0, CPU)
    assert (predict(network, TEST.pixels, CPU) == TEST.labels).double().mean() > 0.8
    seen: list[Tensor] = []
    first = network[1] if isinstance(network, torch.nn.Sequential) else network
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    predict(network, TRAIN.pixels, CPU)
    mean = torch.cat(seen).mean(dim=(0, 2, 3))
    assert torch.allclose(first.running_mean, mean, atol=0.01)


def test_copies_and_parts_of_a_minibatch_give_its_mean_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe("", logistic_regression, 3, False, 0.1, 0)

    def weights(**changes: object) -> Tensor:
        network = train(replace(recipe, **changes), TRAIN, 10, 0, CPU)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    once = weights()
    monkeypatch.setattr("dpbench.evaluators.classifiers.training.PHYSICAL_BATCH", 50)
    assert torch.allclose(weights(copies=2), once, atol=1e-5)
    assert not torch.allclose(weights(learning_rate=0.2), once, atol=1e-3)


def test_schedules_and_weight_decay_change_training() -> None:
    recipe = Recipe("", logistic_regression, 5, False, 0.1, 0)
    changes: Sequence[dict[str, object]] = (
        *({}, {"sgd": Sgd(schedule="cosine")}, {"sgd": Sgd(schedule="constant")}),
        *({"sgd": Sgd(momentum=0.5)}, {"sgd": Sgd(weight_decay=0.1)}, {"batch": 64}),
        {"augmentation": Augmentation(crop=2)},
    )
    sums = {
        sum(
            p.abs().sum().item()
            for p in train(replace(recipe, **each), TRAIN, 10, 0, CPU).parameters()
        )
        for each in changes
    }
    assert len(sums) == len(changes)


def test_colors_change_within_their_range_and_each_image_by_itself() -> None:
    images = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rng = torch.Generator().manual_seed(1)
    changed = Augmentation(color=0.2)(images, rng)
    assert changed.min() >= -1 and changed.max() <= 1
    grey = torch.zeros(50, 3, 4, 4)
    brightness = Augmentation(color=0.2)(grey, rng) + 1
    assert 0.8 <= brightness.min() < 0.9 and 1.1 < brightness.max() <= 1.2
    assert len({round(value, 6) for value in brightness[:, 0, 0, 0].tolist()}) == 50


@pytest.mark.parametrize("build", [logistic_regression, mlp, small_cnn])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 20, 30)])
def test_networks_take_images_of_any_size(
    build: Callable[[ImageSpec, int], torch.nn.Module], shape: tuple[int, int, int]
) -> None:
    assert build(ImageSpec(*shape), 7)(torch.zeros(2, *shape)).shape == (2, 7)
