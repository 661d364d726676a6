"""Areas and presence: SciPy's energy distance, scikit-learn's Brier score, NumPy's quantiles, loops, and laws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import energy_distance
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from aleatoric.errors import InputError
from aleatoric.metrics import functional as F
from aleatoric.metrics.definitions import definition

SIZES = [(6, 7), (3, 4, 5)]
VALID = torch.tensor([[True] * 3, [False, True, True], [True, False, False], [True] * 3, [False] * 3])


def draw(seed, number, classes=2, size=(6, 7), images=5, empty=0.4):
    """(images, number, *size) class maps of very different areas, a share of them empty; one image lacks a class."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(1, classes, (images, number, *size)) if classes > 1 else 0
    share = rng.random((images, number, *[1] * len(size)))
    maps = maps * (rng.random((images, number, *size)) < share)
    maps[rng.random((images, number)) < empty] = 0
    if classes > 2:
        maps[1] *= maps[1] < classes - 1
    return torch.from_numpy(maps)


def bars(areas, length=8):
    """(B, N) areas -> (B, N, 1, length) masks of these areas."""
    return (torch.arange(length) < torch.as_tensor(areas).unsqueeze(-1)).unsqueeze(-2)


def images_of(samples, labels, valid, num_classes):
    """One image after the other: the areas (N,) and (r,) of each of the classes that its averages run over."""
    for index in range(len(samples)):
        s, y = samples[index].flatten(1).numpy(), labels[index, valid[index]].flatten(1).numpy()
        shown = sorted({int(v) for v in np.unique(np.concatenate([s.ravel(), y.ravel()]))} - {0})
        classes = shown if num_classes is None else range(1, num_classes)
        yield [(np.count_nonzero(s == c, axis=1), np.count_nonzero(y == c, axis=1)) for c in classes]


def mean(values, nothing=0.0):
    return float(np.mean(values)) if len(values) else nothing


def twin(function, samples, labels, valid, num_classes, nothing=0.0):
    """(B,) mean over classes of a function of the areas, NaN without a rater."""
    rows = []
    for index, classes in enumerate(images_of(samples, labels, valid, num_classes)):
        rows.append(mean([function(s, y) for s, y in classes], nothing) if valid[index].any() else math.nan)
    return torch.tensor(rows)


def same(ours, expected):
    torch.testing.assert_close(ours, torch.as_tensor(expected, dtype=ours.dtype), atol=1e-5, rtol=1e-5, equal_nan=True)


CASES = [pytest.param(2, None, size, id=f"binary-{len(size)}d") for size in SIZES] + [
    pytest.param(4, known, size, id=f"{known or 'unknown'}-classes-{len(size)}d")
    for known in (None, 5)
    for size in SIZES
]


@pytest.mark.parametrize(("classes", "num_classes", "size"), CASES)
def test_crps_is_half_of_scipys_squared_energy_distance_to_every_rater(classes, num_classes, size):
    samples, labels = draw(1, 6, classes, size), draw(2, 3, classes, size)
    samples[3], labels[3] = 0, 0  # nobody sees anything
    expected = twin(
        lambda s, y: mean([energy_distance(s, [one]) ** 2 / 2 for one in y]), samples, labels, VALID, num_classes
    )
    labels[~VALID] = 255
    same(F.area_crps(samples, labels, VALID, num_classes=num_classes), expected)
    assert expected[:3].min() > 0


@pytest.mark.parametrize("number", [1, 2, 7])
def test_fair_crps_leaves_out_the_pairs_of_a_sample_with_itself(number):
    samples, labels = draw(3, number, empty=0), draw(4, 3, empty=0)

    def fair(s, y):
        pairs = [abs(int(a) - int(b)) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]
        return mean(np.abs(s[:, None] - y).ravel()) - mean(pairs, math.nan) / 2

    ours = F.area_crps(samples, labels, unbiased=True)
    same(ours, twin(fair, samples, labels, torch.ones(5, 3, dtype=torch.bool), None))
    assert ours.isnan().all() == (number == 1)


def test_fair_crps_does_not_depend_on_the_number_of_samples_in_expectation_but_the_usual_one_does():
    values, labels = (0, 2, 5), bars([[0, 2]])
    scores = {}
    for number in (2, 4):
        every = torch.tensor(list(itertools.product(values, repeat=number)))
        raters = labels.expand(len(every), -1, -1, -1)
        scores[number] = [F.area_crps(bars(every), raters, unbiased=u).double().mean().item() for u in (False, True)]
    assert scores[2][1] == pytest.approx(scores[4][1], abs=1e-6)
    assert scores[2][0] > scores[4][0] + 0.1 and scores[4][0] > scores[4][1]


def test_crps_of_one_sample_is_the_absolute_error_and_of_the_raters_own_law_half_their_mean_difference():
    same(F.area_crps(bars([[3]]), bars([[1, 7]])), [3.0])
    raters = bars([[0, 2, 7]])
    same(F.area_crps(raters, raters), [(2 + 7 + 5) * 2 / 9 / 2])
    # proper: no other law of the same number of areas is closer to these raters
    others = torch.tensor(list(itertools.product(range(8), repeat=3)))
    scores = F.area_crps(bars(others), raters.expand(len(others), -1, -1, -1))
    assert scores.min() == pytest.approx(14 / 9) and set(others[scores.argmin()].tolist()) == {0, 2, 7}


@pytest.mark.parametrize(("classes", "num_classes", "size"), CASES)
def test_areas_are_counts_and_numpys_quantiles(classes, num_classes, size):
    samples, labels = draw(5, 6, classes, size), draw(6, 3, classes, size)
    drawn, read = F.mask_areas(samples, labels, VALID, num_classes=num_classes)
    for c in range(1, drawn.shape[1] + 1):
        same(drawn[:, c - 1], (samples == c).flatten(2).sum(2))
        same(read[:, c - 1], (labels == c).flatten(2).sum(2).float().masked_fill(~VALID, math.nan))
    assert drawn.shape[1] == (num_classes or classes) - 1
    ours = F.area_statistics(samples, labels, VALID, num_classes=num_classes)
    every = torch.ones(5, 3, dtype=torch.bool)
    known = num_classes or classes  # without it the classes depend on what valid raters show, so all of them are here
    ours = F.area_statistics(samples, labels, every, num_classes=known)
    for name, function in {
        "samples": lambda s, y: s.mean(),
        "low": lambda s, y: np.quantile(s, 0.05),
        "high": lambda s, y: np.quantile(s, 0.95),
        "raters": lambda s, y: y.mean(),
    }.items():
        same(getattr(ours, name), twin(function, samples, labels, every, known))
    missing = F.area_statistics(samples, labels, VALID, num_classes=known)
    same(missing.raters, twin(lambda s, y: y.mean(), samples, labels, VALID, known))
    same(missing.low, ours.low)


def test_the_size_of_a_pixel():
    samples, labels, sizes = draw(7, 5, 3), draw(8, 3, 3), torch.tensor([0.5, 1.0, 2.0, 0.1, 7.0])
    same(F.area_crps(samples, labels, pixel_size=sizes), F.area_crps(samples, labels) * sizes)
    same(F.area_crps(samples, labels, pixel_size=2.5), F.area_crps(samples, labels) * 2.5)
    for ours, pixels in zip(
        F.area_statistics(samples, labels, pixel_size=sizes), F.area_statistics(samples, labels), strict=True
    ):
        same(ours, pixels * sizes)
    for ours, pixels in zip(
        F.mask_areas(samples, labels, pixel_size=sizes), F.mask_areas(samples, labels), strict=True
    ):
        same(ours, pixels * sizes[:, None, None])
    spacing = torch.tensor([[1.0, 0.5], [1.0, 1.0], [0.5, 4.0], [0.2, 0.5], [7.0, 1.0]])  # of these very areas
    pixels, mm = F.multi_rater_figures(samples, labels), F.multi_rater_figures(samples, labels, spacing=spacing)
    for name, value in pixels.items():
        same(mm[name], value * sizes if name.startswith("area") else value)


def twin_coverage(s, y, level):
    """Ties are broken in every way there is: the rater's place among the N + 1, and the share of it that is inside."""
    low, high = (1 - level) / 2, (1 + level) / 2
    shares = []
    for one in y:
        places = range(np.count_nonzero(s < one), np.count_nonzero(s <= one) + 1)
        steps = [(place / (len(s) + 1), (place + 1) / (len(s) + 1)) for place in places]
        shares.append(mean([max(0.0, min(stop, high) - max(start, low)) * (len(s) + 1) for start, stop in steps]))
    return mean(shares)


@pytest.mark.parametrize("number", [1, 4, 9])
@pytest.mark.parametrize("classes", [2, 4])
def test_coverage_is_the_mean_over_all_ways_to_break_ties(number, classes):
    samples, labels = draw(9, number, classes), draw(10, 3, classes)
    samples[3], labels[3] = 0, 0
    levels = (0.0, 0.1, 0.5, 0.95, 1.0)
    expected = torch.stack(
        [twin(lambda s, y, p=p: twin_coverage(s, y, p), samples, labels, VALID, None, math.nan) for p in levels], 1
    )
    assert expected[3].isnan().all()  # nothing to be calibrated
    labels[~VALID] = 255
    ours = F.area_coverage(samples, labels, VALID, levels)
    same(ours, expected)
    # a class that nobody shows adds nothing, known or not
    same(F.area_coverage(samples, labels, VALID, levels, num_classes=classes + 3), expected)
    figures = F.multi_rater_figures(samples, labels, VALID, area_levels=levels)
    for place, name in enumerate(("0", "10", "50", "95", "100")):
        if number == 1:  # which covers every level whatever it shows
            assert figures[f"area_coverage_{name}"].isnan().all()
        else:
            same(figures[f"area_coverage_{name}"], expected[:, place])


@pytest.mark.parametrize("number", [1, 3, 5])
@pytest.mark.parametrize("share", [(0.5, 0.3, 0.2), (0.05, 0.05, 0.9)])
def test_coverage_of_one_law_is_the_level_exactly(number, share):
    """All draws of N samples and a rater from a law with ties and empty masks, weighted by their probability."""
    places = torch.tensor(list(itertools.product(range(3), repeat=number + 1)))
    weight = torch.tensor(share, dtype=torch.float64)[places].prod(1)
    areas = torch.tensor([0, 2, 5])[places]
    ours = F.area_coverage(bars(areas[:, :number]), bars(areas[:, number:]), levels=F.AREA_LEVELS).double()
    seen = ~ours[:, 0].isnan()
    assert seen.sum() == len(places) - 1  # all but the one in which nobody draws
    expectation = (ours[seen] * weight[seen, None]).sum(0) / weight[seen].sum()
    torch.testing.assert_close(expectation, torch.tensor(F.AREA_LEVELS, dtype=torch.float64), atol=1e-6, rtol=0)


def test_coverage_tells_too_narrow_from_too_wide():
    raters = bars([[1, 3, 4, 6]])
    narrow, wide = bars([[3, 3, 4, 4] * 4]), bars([[0, 0, 8, 8] * 4])
    levels = torch.tensor([0.2, 0.5, 0.8])
    assert (F.area_coverage(narrow, raters, levels=levels.tolist())[0] < levels - 0.05).all()
    assert (F.area_coverage(wide, raters, levels=levels.tolist())[0] > levels + 0.15).all()
    curve = F.area_coverage(narrow, raters, levels=(0, *levels.tolist(), 1))[0]
    assert curve[0] == 0 and curve[-1] == 1 and (curve.diff() >= 0).all()


@pytest.mark.parametrize(("classes", "num_classes", "size"), CASES)
def test_brier_score_is_scikit_learns(classes, num_classes, size):
    samples, labels = draw(11, 6, classes, size), draw(12, 3, classes, size)
    samples[3], labels[3] = 0, 0

    def score(s, y):
        return brier_score_loss((y > 0).astype(int), np.full(len(y), (s > 0).mean()), pos_label=1)

    expected = twin(score, samples, labels, VALID, num_classes)
    rates = [twin(lambda s, y, of=of: ((s, y)[of] > 0).mean(), samples, labels, VALID, num_classes) for of in (0, 1)]
    labels[~VALID] = 255
    same(F.presence_brier(samples, labels, VALID, num_classes=num_classes), expected)
    figures = F.multi_rater_figures(samples, labels, VALID, num_classes=num_classes)
    same(figures["presence_brier"], expected)
    same(figures["presence_samples"][:4], rates[0][:4])  # the last has no rater, but samples
    same(figures["presence_raters"], rates[1])


def test_fair_brier_score_does_not_depend_on_the_number_of_samples_in_expectation():
    law, raters = torch.tensor([0.7, 0.3], dtype=torch.float64), bars([[0, 2, 5]])
    scores = {}
    for number in (2, 5):
        every = torch.tensor(list(itertools.product((0, 1), repeat=number)))
        labels, weight = raters.expand(len(every), -1, -1, -1), law[every].prod(1)
        scores[number] = [
            (F.presence_brier(bars(every), labels, unbiased=u).double() * weight).sum().item() for u in (False, True)
        ]
    truth = (0.3 - 2 / 3) ** 2 + 2 / 9
    assert scores[2][1] == pytest.approx(truth, abs=1e-6) == scores[5][1]
    assert scores[2][0] == pytest.approx(truth + 0.21 / 2, abs=1e-6)
    assert F.presence_brier(bars([[1]]), raters, unbiased=True).isnan().all()


def test_presence_rates_by_class():
    samples, labels = draw(13, 6, 4), draw(14, 3, 4)
    drawn, read = F.presence_rates(samples, labels, VALID, num_classes=6)
    assert drawn.shape == read.shape == (5, 5)
    for c in range(1, 6):
        same(drawn[:, c - 1], (samples == c).flatten(2).any(2).float().mean(1))
        shown = (labels == c).flatten(2).any(2).float().masked_fill(~VALID, math.nan)
        same(read[:, c - 1], shown.nanmean(1))
    assert torch.equal(read[:, 4].nan_to_num(9), torch.tensor([0.0, 0, 0, 0, 9]))


def test_presence_bins_are_scikit_learns_calibration_curve():
    rng = np.random.default_rng(15)
    rates, truth = rng.integers(0, 17, 400) / 16, rng.integers(0, 2, 400)
    bins = F.presence_bins(torch.tensor(rates), torch.tensor(truth), 7)
    frequency, forecast = calibration_curve(truth, rates, n_bins=7)
    filled = bins[bins[:, 0] > 0]
    np.testing.assert_allclose(filled[:, 2] / filled[:, 0], frequency)
    np.testing.assert_allclose(filled[:, 1] / filled[:, 0], forecast)
    # 1.0 has no bin of its own, a rate on the edge belongs to the bin above, also in float32; NaN to none
    edges = torch.tensor([0.0, 0.3, 0.6, 0.7, 1.0, math.nan])
    counts = F.presence_bins(edges, torch.zeros(6), 10)[:, 0]
    assert counts.nonzero().flatten().tolist() == [0, 3, 6, 7, 9]
    halves = [
        F.presence_bins(torch.tensor(rates[part]), torch.tensor(truth[part]), 7) for part in (slice(9), slice(9, 400))
    ]
    same(halves[0] + halves[1], bins)


FIGURES = ("area_crps", "area_samples", "area_samples_low", "area_samples_high", "area_raters", "area_coverage_50")
FIGURES += ("presence_samples", "presence_raters", "presence_brier")


def figures(*args, **options):
    every = F.multi_rater_figures(*args, area_levels=(0.5,), **options)
    return {name: every[name] for name in FIGURES}


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(1, 5), raters=st.integers(1, 4), classes=st.integers(2, 4))
def test_laws(seed, number, raters, classes):
    rng = torch.Generator().manual_seed(seed)
    samples, labels = draw(seed, number, classes, images=2), draw(seed + 1, raters, classes, images=2)
    expected = figures(samples, labels)
    shuffled = samples[:, torch.randperm(number, generator=rng)], labels[:, torch.randperm(raters, generator=rng)]
    twice = samples, labels.repeat(1, 2, 1, 1)
    one_more = torch.cat([labels, torch.full_like(labels[:, :1], 255)], 1)
    without = figures(samples, one_more, torch.tensor([[True] * raters + [False]] * 2))
    for name, value in expected.items():
        same(figures(*shuffled)[name], value)
        same(figures(*twice)[name], value)
        same(without[name], value)  # a missing rater is a rater removed
    replicated = figures(samples.repeat(1, 3, 1, 1), labels)
    for name in ("area_crps", "area_samples", "presence_samples", "presence_brier"):
        same(replicated[name], expected[name])
    assert (expected["area_crps"] >= 0).all() and (expected["presence_brier"] <= 1).all()
    # class maps: the mean of what each class alone gives
    known = figures(samples, labels, num_classes=classes)
    for name in set(FIGURES) - {"area_coverage_50"}:
        alone = [figures((samples == c), (labels == c), num_classes=2)[name] for c in range(1, classes)]
        same(known[name], torch.stack(alone).mean(0))


def test_every_figure_says_what_it_is():
    names = F.multi_rater_figures(draw(1, 2), draw(2, 2), kernels=F.KERNELS[:3], area_levels=F.AREA_LEVELS)
    assert [name for name in names if not definition(name)] == []
    assert len([name for name in names if name.startswith("area_coverage_")]) == 9 and "area_coverage_30" in names


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: F.area_crps(s, s, pixel_size=0.0), "pixel_size is 0.0; pass a positive"),
        (lambda s: F.area_crps(s, s, pixel_size=torch.ones(3)), r"one number or \(2,\)"),
        (lambda s: F.area_statistics(s, s, pixel_size=math.nan), "pixel_size is nan"),
        (lambda s: F.area_coverage(s, s, levels=(0.5, 1.5)), r"levels are \[0.5, 1.5\]"),
        (lambda s: F.multi_rater_figures(s, s, area_levels=(math.nan,)), "from 0 to 1"),
        (lambda s: F.multi_rater_figures(s, s, spacing=(1.0, 1.0, 1.0)), "masks have 2 spatial axes"),
        (lambda s: F.presence_bins(torch.zeros(3), torch.zeros(2)), r"pass two of shape \(n,\)"),
        (lambda s: F.presence_bins(torch.zeros(3), torch.zeros(3), 0), "1 bin or more"),
        (lambda s: F.presence_bins(torch.tensor([-0.5]), torch.zeros(1)), r"outside \[0, 1\]"),
        (lambda s: F.presence_bins(torch.zeros(1), torch.tensor([7.0])), r"outside \[0, 1\]"),
        (lambda s: F.presence_bins([0.5], torch.zeros(1)), "sample_rates is a list"),
        (lambda s: F.presence_bins(torch.zeros(1), [0.5]), "rater_rates is a list"),
        (lambda s: F.presence_bins_of_cases(torch.zeros(3), torch.zeros(3)), r"pass two of shape \(cases, C\)"),
        (lambda s: F.presence_calibration_error(torch.zeros(10, 2)), "bins have shape"),
        (lambda s: F.presence_calibration_error([[0.0] * 3]), "bins is a list"),
        (lambda s: F.area_calibration_error(torch.zeros(4)), r"coverage has shape \(4,\) for 9 levels"),
        (lambda s: F.area_calibration_error(torch.zeros(1), levels=(2.0,)), "from 0 to 1"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(InputError, match=message) as error:
        call(draw(1, 2, images=2))
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
