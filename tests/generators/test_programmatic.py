from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from scipy import stats

from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.core.progress import Silent
from dpbench.core.registry import entries, load
from dpbench.generators.programmatic.class_recipes import ClassRecipes
from dpbench.generators.programmatic.dead_leaves import SHAPES, DeadLeaves, inside_leaf
from dpbench.generators.programmatic.glyphs import FONTS, GLYPHS, Glyphs, template
from dpbench.generators.programmatic.salt_and_pepper import SaltAndPepper
from dpbench.generators.programmatic.spectrum import Spectrum
from dpbench.runs.public_images import CHUNK, programmatic_images

GREY = ImageSpec(1, 28, 28)
SMALL = ImageSpec(1, 8, 8)
every_source = pytest.mark.parametrize("source", entries("source"))


def draw(
    source: str, count: int, spec: ImageSpec = GREY, classes: int = 10, seed: int = 0
) -> Images:
    return programmatic_images(source, count, spec, classes, seed, Silent())


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def any_labels(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.int64)


@every_source
def test_fewer_images_are_a_prefix_of_more(source: str) -> None:
    few, many = draw(source, 100, SMALL), draw(source, 2 * CHUNK + 10, SMALL)
    assert torch.equal(few.pixels, many.pixels[:100])
    assert torch.equal(few.labels, many.labels[:100])


@every_source
def test_no_two_images_and_no_two_seeds_give_the_same(source: str) -> None:
    pixels = torch.cat([draw(source, 2 * CHUNK, SMALL, seed=seed).pixels for seed in (0, 1)])
    assert len(pixels.flatten(1).unique(dim=0)) == 4 * CHUNK


@every_source
@pytest.mark.parametrize(
    "spec", [GREY, ImageSpec(1, 16, 16), ImageSpec(3, 32, 32), ImageSpec(3, 12, 20)]
)
def test_images_have_the_shape_asked_for_and_use_the_range(source: str, spec: ImageSpec) -> None:
    images = draw(source, 40, spec)
    assert images.pixels.shape == (40, *spec.shape)
    assert images.pixels.max() > 200
    assert images.pixels.min() == 0
    drawn = load("source", source)().draw(spec, any_labels(2), rng())
    assert drawn.shape == (2, *spec.shape) and drawn.dtype == torch.uint8


@every_source
def test_three_channels_are_coloured(source: str) -> None:
    red, green, blue = draw(source, 10, ImageSpec(3, 16, 16)).pixels.float().unbind(1)
    assert (red - green).abs().mean() > 5
    assert (green - blue).abs().mean() > 5


@every_source
def test_labels_are_within_the_classes_and_about_balanced(source: str) -> None:
    counts = draw(source, 700, ImageSpec(1, 4, 4), classes=7).labels.bincount()
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("source", ["class-recipes", "glyphs"])
def test_labels_that_mean_something_are_exactly_balanced(source: str) -> None:
    assert draw(source, 70, SMALL, classes=7).labels.tolist() == [*range(7)] * 10


@every_source
def test_a_label_changes_the_picture_where_it_means_something_and_nowhere_else(source: str) -> None:
    program = load("source", source)()
    ones, twos = (program.draw(GREY, any_labels(8) + label, rng()) for label in (1, 2))
    same = (ones == twos).flatten(1).all(1)
    assert not same.any() if program.labelled else same.all()


def test_no_images_are_an_empty_set() -> None:
    assert len(draw("dead-leaves", 0)) == 0


@pytest.mark.parametrize(
    ("name", "hint"),
    [("dead-leafs", "Did you mean 'dead-leaves'?"), ("xyz", "salt-and-pepper")],
)
def test_an_unknown_source_is_the_users_mistake_and_is_met_with_a_suggestion(
    name: str, hint: str
) -> None:
    with pytest.raises(UserError) as caught:
        draw(name, 1)
    assert hint in str(caught.value) and "\n" not in str(caught.value)


def test_progress_is_one_task_that_counts_images() -> None:
    class Heard(Silent):
        tasks: list[tuple[float, str]] = []
        advanced = 0.0

        def advance(self, amount: float, note: str = "") -> None:
            self.advanced += amount

        @contextmanager
        def task(self, label: str, total: float, unit: str, done: float = 0) -> Iterator[Heard]:
            self.tasks.append((total, unit))
            yield self

    heard = Heard()
    programmatic_images("salt-and-pepper", 100, SMALL, 10, 0, heard)
    assert heard.tasks == [(100, "images")]
    assert heard.advanced == 100


@pytest.mark.parametrize("r_min", [0.03, 0.2])
def test_leaf_radii_follow_the_published_law(r_min: float) -> None:
    radii = DeadLeaves(r_min=r_min).draw_radii(200_000, rng()).numpy()
    grid = np.linspace(r_min, 1, 200)
    pmf = grid**-3.0 - 1
    expected = len(radii) * pmf / pmf.sum()
    observed = np.bincount(np.abs(radii[:, None] - grid).argmin(1), minlength=200)
    rare = expected < 10
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert stats.chisquare(observed, expected).pvalue > 1e-4


@pytest.mark.parametrize(
    ("shape", "mean_area"),
    [
        ("circle", np.pi),
        ("square", 2),
        ("oriented square", 2),
        ("rectangle", 4 / np.pi),
        ("triangle", 3 / (2 * np.pi)),
        ("quadrilateral", 3 / np.pi),
    ],
)
def test_shapes_have_the_mean_area_of_figures_inscribed_in_the_unit_circle(
    shape: str, mean_area: float
) -> None:
    count = 100_000
    angle = 2 * np.pi * torch.rand(count, generator=rng(1))
    radius = torch.rand(count, generator=rng(3)).sqrt()
    kind = torch.full((count,), SHAPES.index(shape))
    uniforms = torch.rand(count, 4, generator=rng(2))
    inside = inside_leaf(radius * angle.sin(), radius * angle.cos(), kind, uniforms)
    share = mean_area / np.pi
    spread = np.sqrt(share * (1 - share) / count)
    assert abs(inside.float().mean().item() - share) <= 4 * spread


def test_a_square_stands_straight_and_an_oriented_square_stands_anyhow() -> None:
    y, x = torch.cartesian_prod(*[torch.linspace(-0.999, 0.999, 41)] * 2).T
    y, x = y[y**2 + x**2 < 1], x[y**2 + x**2 < 1]
    straight = torch.maximum(y.abs(), x.abs()) <= 0.5**0.5
    uniforms = torch.rand(len(y), 4, generator=rng())
    square, oriented = (
        inside_leaf(y, x, torch.full((len(y),), SHAPES.index(name)), uniforms)
        for name in ("square", "oriented square")
    )
    assert torch.equal(square, straight)
    # Of the orientations of the square, a share p(r) = 1 - 4 acos(sqrt(1/2) / r) / pi covers a
    # point at radius r > sqrt(1/2); the mean of p over the disc outside the straight square is the
    # integral of 2 pi r p (1 - p) over r, divided by pi - 2.
    outside = oriented[~straight].float()
    spread = (0.2058 * (1 - 0.2058) / len(outside)) ** 0.5
    assert abs(outside.mean() - 0.2058) < 3 * spread


def painted_back_to_front(
    generator: np.random.Generator, side: int, leaves: int, r_min: float
) -> np.ndarray:
    """Which leaf shows at each pixel: the definition of dead leaves, by other means than ours."""
    grid = np.linspace(r_min, 1, 200)
    pmf = grid**-3.0 - 1
    radius = side * generator.choice(grid, leaves, p=pmf / pmf.sum())
    shape = generator.integers(6, size=leaves)
    turn = generator.uniform(0, 2 * np.pi, (leaves, 1))
    a = generator.uniform(0, np.pi / 2, (leaves, 1))
    square = np.tile(np.pi * np.array([0.25, 0.75, 1.25, 1.75]), (leaves, 1))
    four = np.sort(generator.uniform(0, 2 * np.pi, (leaves, 4)))
    three = np.sort(generator.uniform(0, 2 * np.pi, (leaves, 3)))
    angles = np.select(
        [shape[:, None] == s for s in (1, 2, 3, 4, 5)],
        [
            square,
            square + turn,
            np.hstack([a, np.pi - a, np.pi + a, -a]),
            np.hstack([three, three[:, 2:]]),
            four,
        ],
    )
    centre = generator.uniform(0, side, (leaves, 2)) @ np.array([1, 1j])
    corners = centre[:, None] + radius[:, None] * np.exp(1j * angles)
    across = np.arange(side) + 0.5
    pixels = (across + 1j * across[:, None]).ravel()
    # a polygon is around a point when its corners, seen from there, go round once
    seen = corners[:, :, None] - pixels
    turns = np.angle(np.roll(seen, -1, axis=1) / seen).sum(1)
    inside = np.where(
        shape[:, None] == 0,
        np.abs(centre[:, None] - pixels) < radius[:, None],
        np.abs(turns) > np.pi,
    )
    return (leaves - 1 - inside[::-1].argmax(0)).reshape(side, side)


def test_one_leaf_shows_at_two_pixels_as_often_as_when_painted_back_to_front() -> None:
    generator = np.random.default_rng(0)
    painted = np.stack([painted_back_to_front(generator, 8, 150, 0.2) for _ in range(500)])
    # three channels, so that two leaves are hardly ever of one colour
    pixels = DeadLeaves(r_min=0.2).draw(ImageSpec(3, 8, 8), any_labels(2000), rng()).numpy()
    for apart in (1, 3):
        expected = (painted[..., apart:] == painted[..., :-apart]).mean((1, 2))
        observed = (pixels[..., apart:] == pixels[..., :-apart]).all(1).mean((1, 2))
        assert abs(stats.ttest_ind(observed, expected, equal_var=False).statistic) < 3.5


def test_leaves_cover_the_canvas_to_its_corners() -> None:
    black = (draw("dead-leaves", 2 * CHUNK).pixels == 0).float()
    # one colour in 256 is black
    assert black.mean() < 2 / 256
    assert black[..., [0, 0, -1, -1], [0, -1, 0, -1]].mean() < 5 / 256


def test_a_larger_smallest_leaf_and_oversampling_give_smoother_images() -> None:
    def roughness(source: DeadLeaves) -> float:
        return float(source.draw(SMALL, any_labels(64), rng()).float().diff().abs().mean())

    assert roughness(DeadLeaves(r_min=0.2)) < 0.8 * roughness(DeadLeaves())
    assert roughness(DeadLeaves(oversample=3)) < 0.8 * roughness(DeadLeaves())


def test_salt_and_pepper_are_equally_many_on_a_plain_background_in_the_stated_fraction() -> None:
    pixels = SaltAndPepper().draw(ImageSpec(3, 32, 32), any_labels(1000), rng()).flatten(2)
    salt, pepper = (pixels == 255).all(1), (pixels == 0).all(1)
    background = pixels.permute(0, 2, 1)[~(salt | pepper)]
    assert background.min() >= 1 and background.max() <= 254
    for image in range(20):
        assert len(pixels[image].T.unique(dim=0)) <= 3
    assert abs(salt.float().mean() / pepper.float().mean() - 1) < 0.02
    fractions = (salt | pepper).float().mean(1).numpy()
    # the spread of a fraction of 1024 pixels around its p is 0.016 at most
    assert stats.kstest(fractions, stats.uniform(0.01, 0.49).cdf).pvalue > 1e-3
    assert fractions.max() < 0.5 + 5 * 0.016


def radial_slope(pixels: torch.Tensor) -> float:
    """The slope of log mean power over log frequency, all channels and square images together."""
    side = pixels.shape[-1]
    pixels = pixels.float() - pixels.float().mean((2, 3), keepdim=True)
    pixels = pixels / pixels.std((1, 2, 3), keepdim=True)
    power = torch.fft.fft2(pixels).abs().square().mean((0, 1))
    frequency = torch.fft.fftfreq(side, 1 / side)
    ring = (frequency[:, None] ** 2 + frequency**2).sqrt().round().long().flatten()
    mean = ring.bincount(power.flatten()) / ring.bincount()
    rings = range(3, side // 2)  # lower ones are far from round
    return float(stats.linregress(np.log(rings), mean[list(rings)].log()).slope)


@pytest.mark.parametrize("spec", [ImageSpec(1, 64, 64), ImageSpec(3, 64, 64)])
@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_the_power_of_a_spectrum_falls_as_its_slope_says(slope: float, spec: ImageSpec) -> None:
    pixels = Spectrum(slope, slope).draw(spec, any_labels(100), rng())
    assert abs(radial_slope(pixels) + 2 * slope) < 0.1
    white = torch.randint(256, pixels.shape, generator=rng())
    assert abs(radial_slope(white)) < 0.05


def test_slopes_along_the_axes_are_uniform_and_nearly_alike() -> None:
    # an odd, a longer and a shorter side; only low frequencies stand clear of the rounding to uint8
    pixels = Spectrum().draw(ImageSpec(1, 27, 40), any_labels(1000), rng())[:, 0].float()
    magnitude = torch.fft.fft2(pixels).abs()
    a, b = (
        -np.polyfit(np.log([1, 2, 3]), along[:, 1:4].log().numpy().T, 1)[0]
        for along in (magnitude[:, 0], magnitude[:, :, 0])
    )
    assert stats.kstest((a + b) / 2, stats.uniform(0.5, 3).cdf).pvalue > 1e-3
    assert abs((a - b).std() / 0.1 - 1) < 0.1


def test_channels_of_a_spectrum_are_correlated_in_each_image_and_not_on_the_whole() -> None:
    # fields this rough are near to white noise: unmixed planes would have correlations near 0
    pixels = Spectrum(0.5, 0.5).draw(ImageSpec(3, 32, 32), any_labels(500), rng()).flatten(2)
    correlation = torch.stack([image.float().corrcoef()[0, 1] for image in pixels])
    assert correlation.abs().mean() > 0.3
    assert abs(correlation.mean()) < 0.1


@pytest.mark.parametrize("font", FONTS)
def test_a_font_has_every_glyph_whole_and_none_looks_like_another(font: str) -> None:
    pictures = torch.stack([template(glyph, font, 56) for glyph in GLYPHS])[:, 0]
    assert len(GLYPHS) == len(pictures.flatten(1).unique(dim=0)) == 62
    assert (pictures.flatten(1).amax(1) == 255).all()
    for edge in (pictures[:, 0], pictures[:, -1], pictures[..., 0], pictures[..., -1]):
        assert edge.max() == 0


def test_fonts_differ_and_glyphs_begin_again_after_the_last() -> None:
    assert len(torch.stack([template("4", font, 56) for font in FONTS]).unique(dim=0)) == len(FONTS)
    first, again = (Glyphs().draw(GREY, torch.arange(62) + shift, rng()) for shift in (0, 62))
    assert torch.equal(first, again)
    assert GLYPHS[:12] == "0123456789AB" and GLYPHS[35:37] == "Za"


@pytest.mark.parametrize(
    ("source", "good", "fair"), [("class-recipes", 0.9, 0.75), ("glyphs", 0.7, 0.5)]
)
@pytest.mark.parametrize("spec", [GREY, ImageSpec(1, 16, 16), ImageSpec(3, 32, 32)])
def test_classes_are_told_apart_on_draws_from_another_seed(
    spec: ImageSpec, source: str, good: float, fair: float
) -> None:
    known, held_out = (draw(source, 1000, spec, seed=seed) for seed in (0, 1))
    means = torch.stack([known.pixels[known.labels == c].float().mean(0) for c in range(10)])
    directions = torch.nn.functional.normalize(means.flatten(1))
    right = (held_out.pixels.float().flatten(1) @ directions.T).argmax(1) == held_out.labels
    assert right.float().mean() > good
    for c in range(10):
        assert right[held_out.labels == c].float().mean() > fair


@pytest.mark.parametrize("source", [ClassRecipes(), Glyphs()])
def test_images_of_a_class_differ_in_outline_and_brightness(source: ClassRecipes | Glyphs) -> None:
    pixels = source.draw(GREY, torch.full((64,), 3), rng()).float()
    outlines = (pixels > 0).float().flatten(1)
    overlap = (outlines[:32] * outlines[32:]).sum(1)
    union = (outlines[:32] + outlines[32:]).clamp(max=1).sum(1)
    assert (overlap / union).mean() < 0.9
    assert pixels.mean((1, 2, 3)).std() > 10


def test_objects_of_every_class_fill_a_good_part_of_a_black_canvas() -> None:
    images = draw("class-recipes", 1000)
    filled = (images.pixels > 12).float().mean((1, 2, 3))
    for c in range(10):
        assert 0.2 < filled[images.labels == c].mean() < 0.6


def test_a_class_looks_the_same_however_many_classes_there_are() -> None:
    two, ten = draw("class-recipes", 200, classes=2), draw("class-recipes", 1000, classes=10)
    for c in range(2):
        of_two, of_ten = (i.pixels[i.labels == c].float().mean(0).flatten() for i in (two, ten))
        assert torch.cosine_similarity(of_two, of_ten, dim=0) > 0.97


def test_another_recipe_seed_gives_other_classes() -> None:
    labels = torch.arange(10).repeat(20)
    ours, others = (
        ClassRecipes(recipe_seed).draw(GREY, labels, rng()).float().view(20, 10, -1).mean(0)
        for recipe_seed in (0, 1)
    )
    assert torch.cosine_similarity(ours, others, dim=1).mean() < 0.9
