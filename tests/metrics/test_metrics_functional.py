"""GED, EWD, diversity and Dice against twins that visit every pair in Python, and the laws that they obey."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from aleatoric.errors import InputError
from aleatoric.metrics import _overlap
from aleatoric.metrics import functional as F

SIZES_2D, SIZES_3D = (7, 9), (4, 5, 3)


def draw(seed, number, size=SIZES_2D, images=3, classes=2, empty=0.3):
    """(images, number, *size) class maps, of which the share ``empty`` is empty."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, classes, (images, number, *size))
    maps[rng.random((images, number)) < empty] = 0
    return torch.from_numpy(maps)


def twin_distance(a, b, classes, score="iou"):
    """Mean over ``classes`` of 1 - IoU or 1 - Dice, by sets of pixels."""
    losses = []
    for c in classes:
        first = {tuple(p) for p in np.argwhere(np.asarray(a) == c)}
        second = {tuple(p) for p in np.argwhere(np.asarray(b) == c)}
        if not first and not second:
            losses.append(0.0)
        elif score == "iou":
            losses.append(1 - len(first & second) / len(first | second))
        else:
            losses.append(1 - 2 * len(first & second) / (len(first) + len(second)))
    return sum(losses) / len(losses) if losses else 0.0


def twin_classes(samples, labels, num_classes):
    """The classes that an image's averages run over."""
    if num_classes is not None:
        return range(1, num_classes)
    return sorted({int(v) for maps in (samples, labels) for m in maps for v in np.unique(m)} - {0})


def images_of(samples, labels, rater_valid, num_classes):
    """One image after the other: its samples, its valid raters, its classes."""
    for index in range(len(samples)):
        raters = [y for r, y in enumerate(labels[index]) if rater_valid is None or rater_valid[index, r]]
        yield list(samples[index]), raters, twin_classes(samples[index], raters, num_classes)


def twin_mean(first, second, classes, distinct=False):
    pairs = [
        twin_distance(a, b, classes)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if not (distinct and i == j)
    ]
    return sum(pairs) / len(pairs) if pairs else math.nan


def twin_ged(samples, labels, rater_valid=None, unbiased=False, num_classes=None):
    values = []
    for s, y, classes in images_of(samples, labels, rater_valid, num_classes):
        among = 0.0 if len(y) == 1 else twin_mean(y, y, classes, unbiased)
        values.append(2 * twin_mean(s, y, classes) - twin_mean(s, s, classes, unbiased) - among)
    return torch.tensor(values)


def transport(cost):
    """Optimal transport between two uniform measures as a linear programme: no replication, no assignment."""
    n, r = cost.shape
    rows = [np.kron(np.eye(n)[i], np.ones(r)) for i in range(n)]
    columns = [np.kron(np.ones(n), np.eye(r)[j]) for j in range(r)]
    bounds = np.r_[np.full(n, 1 / n), np.full(r, 1 / r)]
    return linprog(cost.ravel(), A_eq=np.array(rows + columns), b_eq=bounds).fun


def twin_ewd(samples, labels, rater_valid=None, kernel="iou", num_classes=None):
    values = []
    for s, y, classes in images_of(samples, labels, rater_valid, num_classes):
        cost = np.array([[twin_distance(a, b, classes, kernel) for b in y] for a in s])
        values.append(transport(cost))
    return torch.tensor(values)


def same(ours, twin):
    torch.testing.assert_close(ours, twin.to(ours.dtype), atol=1e-6, rtol=1e-5, equal_nan=True)


CASES = [
    pytest.param(4, 4, SIZES_2D, 2, None, id="binary"),
    pytest.param(6, 4, SIZES_2D, 2, None, id="samples-no-multiple-of-raters"),
    pytest.param(3, 5, SIZES_2D, 2, None, id="fewer-samples-than-raters"),
    pytest.param(4, 1, SIZES_2D, 2, None, id="one-rater"),
    pytest.param(6, 2, SIZES_3D, 2, None, id="3d"),
    pytest.param(4, 3, SIZES_2D, 4, None, id="class-maps"),
    pytest.param(4, 3, SIZES_2D, 3, 5, id="class-maps-of-five"),
    pytest.param(3, 2, SIZES_3D, 3, 3, id="class-maps-3d"),
]


@pytest.mark.parametrize(("n", "r", "size", "classes", "num_classes"), CASES)
@pytest.mark.parametrize("missing", [False, True])
def test_equal_to_a_loop_over_all_pairs(n, r, size, classes, num_classes, missing):
    samples, labels = draw(1, n, size, classes=classes), draw(2, r, size, classes=classes)
    samples[0], labels[0] = 0, 0  # an image in which nobody sees anything
    valid = None
    if missing and r > 1:
        valid = torch.ones(3, r, dtype=torch.bool)
        valid[1, 0] = valid[2, 1:] = False
        labels[1, 0] = 255  # what a missing rater's map holds must not matter
    for unbiased in (False, True):
        ours = F.generalized_energy_distance(samples, labels, valid, unbiased, num_classes=num_classes)
        same(ours, twin_ged(samples, labels, valid, unbiased, num_classes))
    for kernel in ("iou", "dice"):
        ours = F.empirical_wasserstein_distance(samples, labels, valid, kernel, num_classes=num_classes)
        same(ours, twin_ewd(samples, labels, valid, kernel, num_classes))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("skip_empty", [False, True])
def test_dice_equal_to_a_loop(classes, skip_empty):
    samples, labels = draw(3, 4, classes=classes), draw(4, 3, classes=classes, empty=0.5)
    labels[0] = 0
    valid = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])
    expected = torch.full((3, 4, 3), math.nan)
    for b, n, r in itertools.product(range(3), range(4), range(3)):
        if valid[b, r]:
            counted = twin_classes(samples[b], labels[b, valid[b]], None)
            if skip_empty:
                counted = [c for c in counted if (labels[b, r] == c).any()]
            if counted:
                expected[b, n, r] = 1 - twin_distance(samples[b, n], labels[b, r], counted, "dice")
    ours = F.dice(samples, labels, skip_empty, rater_valid=valid, reduction="none")
    same(ours, expected)
    same(F.dice(samples, labels, skip_empty, rater_valid=valid), expected.flatten(1).nanmean(1))


def test_sample_diversity_equal_to_a_loop():
    samples = draw(5, 5, classes=3)
    for unbiased in (False, True):
        expected = [twin_mean(s, s, twin_classes(s, [], None), unbiased) for s in samples]
        same(F.sample_diversity(samples, unbiased), torch.tensor(expected))


def test_figures_in_one_pass_are_the_figures_one_by_one():
    samples, labels = draw(6, 6, classes=3), draw(7, 4, classes=3)
    valid = torch.tensor([[True] * 4, [True, False, True, True], [False] * 4])
    figures = F.multi_rater_figures(
        samples, labels, valid, kernels=("iou", "dice", "hausdorff"), area_levels=(0.5, 0.9)
    )
    areas = F.area_statistics(samples, labels, valid)
    coverage = F.area_coverage(samples, labels, valid, levels=(0.5, 0.9))
    presence = [rates.mean(1) for rates in F.presence_rates(samples, labels, valid)]  # every image shows both classes
    biased, unbiased = (F.generalized_energy_terms(samples, labels, valid, u) for u in (False, True))
    expected = {
        "ged": F.generalized_energy_distance(samples, labels, valid),
        "ged_unbiased": F.generalized_energy_distance(samples, labels, valid, unbiased=True),
        "cross": biased.cross,
        "diversity": biased.samples,
        "diversity_unbiased": unbiased.samples,
        "rater_diversity": biased.labels,
        "rater_diversity_unbiased": unbiased.labels,
        "dice": F.dice(samples, labels, rater_valid=valid),
        "dice_nonempty": F.dice(samples, labels, True, rater_valid=valid),
        "dice_max": F.dice_max(samples, labels, valid),
        "dice_quantile_95": F.dice_quantile(samples, labels, rater_valid=valid),
        "dice_between_raters": F.dice_between_raters(labels, valid),
        "ewd": F.empirical_wasserstein_distance(samples, labels, valid),
        "ewd_dice": F.empirical_wasserstein_distance(samples, labels, valid, "dice"),
        "ewd_hausdorff": F.empirical_wasserstein_distance(samples, labels, valid, "hausdorff"),
        "hm_iou": F.hm_iou(samples, labels, valid),
        "dice_matched": F.dice_matched(samples, labels, valid),
        "area_crps": F.area_crps(samples, labels, valid),
        "area_samples": areas.samples,
        "area_samples_low": areas.low,
        "area_samples_high": areas.high,
        "area_raters": areas.raters,
        "area_coverage_50": coverage[:, 0],
        "area_coverage_90": coverage[:, 1],
        "presence_samples": presence[0],
        "presence_raters": presence[1],
        "presence_brier": F.presence_brier(samples, labels, valid),
    }
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name].shape == (3,) and figures[name].dtype == torch.float32
        same(figures[name], value)


def test_both_overlap_kernels_by_default_from_one_count_of_the_pixels(monkeypatch):
    samples, labels = draw(31, 6, classes=3), draw(32, 4, classes=3)
    valid = torch.tensor([[True] * 4, [True, False, True, True], [False, True, False, False]])
    counts, original = [], _overlap.count_intersections
    monkeypatch.setattr(_overlap, "count_intersections", lambda *a: counts.append(1) or original(*a))
    figures = F.multi_rater_figures(samples, labels, valid)
    assert len(counts) == 1
    same(figures["ewd"], twin_ewd(samples, labels, valid, "iou"))
    same(figures["ewd_dice"], twin_ewd(samples, labels, valid, "dice"))
    assert "ewd_hausdorff" not in figures  # distance transforms: only who asks for them pays


OF_SAMPLES = {"diversity", "diversity_unbiased", *(f"area_samples{part}" for part in ("", "_low", "_high"))}
OF_SAMPLES.add("presence_samples")


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_no_valid_rater_is_nan_and_spoils_no_other_image():
    samples, labels = draw(8, 4), draw(9, 3)
    valid = torch.tensor([[True] * 3, [False] * 3, [True] * 3])
    figures = F.multi_rater_figures(samples, labels, valid, kernels=("iou", "hausdorff"))
    for name, value in figures.items():
        assert value[1].isnan() != (name in OF_SAMPLES), name
        assert not value[[0, 2]].isnan().any(), name


def test_identical_sets_are_at_distance_zero():
    masks = draw(10, 4)
    assert torch.equal(F.generalized_energy_distance(masks, masks), torch.zeros(3))
    # A set and its own replication are the same distribution.
    same(F.generalized_energy_distance(masks.repeat(1, 3, 1, 1), masks), torch.zeros(3))
    for kernel in ("iou", "dice", "hausdorff", "cross_entropy"):
        replicated = masks.repeat(1, 2, 1, 1).flip(1)
        assert torch.equal(F.empirical_wasserstein_distance(replicated, masks, kernel=kernel), torch.zeros(3))


def test_order_does_not_matter_but_membership_does():
    samples, labels = draw(11, 6), draw(12, 4)
    first = F.multi_rater_figures(samples, labels, kernels=("iou", "hausdorff"))
    mixed = F.multi_rater_figures(samples[:, [3, 1, 5, 0, 2, 4]], labels[:, [2, 0, 3, 1]], kernels=("iou", "hausdorff"))
    swapped = F.multi_rater_figures(samples[[1, 0, 2]], labels)
    for name in first:
        same(mixed[name], first[name])
    assert not torch.allclose(swapped["ged"][:2], first["ged"][:2])
    assert not torch.allclose(swapped["ewd"][:2], first["ewd"][:2])


def test_both_sets_may_change_places():
    samples, labels = draw(13, 5), draw(14, 4)
    same(F.generalized_energy_distance(samples, labels), F.generalized_energy_distance(labels, samples))
    same(F.empirical_wasserstein_distance(samples, labels), F.empirical_wasserstein_distance(labels, samples))


@pytest.mark.parametrize("classes", [2, 3])
def test_bounds(classes):
    samples, labels = draw(15, 5, images=20, classes=classes), draw(16, 3, images=20, classes=classes)
    figures = F.multi_rater_figures(samples, labels)
    for name in ("cross", "diversity", "rater_diversity", "dice", "ewd", "ewd_dice"):
        assert figures[name].min() >= 0 and figures[name].max() <= 1
    assert figures["ged"].min() >= -1e-6 and figures["ged"].max() <= 2
    assert (figures["ewd"] <= figures["cross"] + 1e-6).all()  # the product coupling is one of the couplings
    # 1 - IoU = 2 (1 - Dice) / (2 - Dice) for every pair and class, so between one and two times 1 - Dice
    assert (figures["ewd_dice"] <= figures["ewd"] + 1e-6).all()
    assert (figures["ewd"] <= 2 * figures["ewd_dice"] + 1e-6).all()
    same(figures["diversity_unbiased"], figures["diversity"] * 5 / 4)


def test_empty_conventions():
    empty, drawn = torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    drawn[..., 1:3, 1:3] = 1
    assert F.iou_distance(empty, empty).item() == 0 and F.iou_distance(empty, drawn).item() == 1
    assert F.dice(empty, empty).item() == 1 and F.dice(drawn, empty).item() == 0
    assert F.dice(drawn, empty, skip_empty=True).isnan().item()
    # One sees a lesion, one does not, on both sides: 2 * 1/2 - 1/2 - 1/2.
    both = torch.cat([empty, drawn], 1)
    assert F.generalized_energy_distance(both, both).item() == 0
    assert F.generalized_energy_distance(both, empty).item() == 0.5  # 2 * 1/2 - 1/2 - 0
    assert F.generalized_energy_distance(drawn, empty).item() == 2


def test_a_missing_rater_is_not_a_rater_who_drew_nothing():
    drawn = torch.ones(1, 2, 3, 3, dtype=torch.uint8)
    labels = torch.cat([drawn[:, :1], torch.zeros(1, 1, 3, 3, dtype=torch.uint8)], 1)
    assert F.generalized_energy_distance(drawn, labels).item() == 0.5
    assert F.generalized_energy_distance(drawn, labels, torch.tensor([[True, False]])).item() == 0


def test_single_sample_and_single_rater():
    samples, labels = draw(17, 1, empty=0), draw(18, 1, empty=0)
    assert F.generalized_energy_distance(samples, labels, unbiased=True).isnan().all()
    terms = F.generalized_energy_terms(draw(17, 3), labels, unbiased=True)
    assert torch.equal(terms.labels, torch.zeros(3)) and not terms.distance().isnan().any()
    same(F.generalized_energy_distance(samples, labels), 2 * F.iou_distance(samples, labels).flatten())
    # one rater shows no disagreement, which is not to say that there is none; nor does one sample
    figures = F.multi_rater_figures(
        draw(17, 3), draw(18, 2), torch.tensor([[True, False], [True, True], [False, False]])
    )
    assert figures["rater_diversity_unbiased"].isnan().tolist() == [True, False, True]
    assert figures["ged_unbiased"].isnan().tolist() == [False, False, True]
    assert F.multi_rater_figures(samples, labels)["diversity_unbiased"].isnan().all()


DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int64, torch.float32, torch.float16, torch.bfloat16]
DTYPES += [torch.uint16, torch.uint32, torch.uint64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_data_types_do_not_matter(dtype):
    samples, labels = draw(19, 5), draw(20, 3)
    expected = F.multi_rater_figures(samples, labels)
    for a, b in ((samples.to(dtype), labels), (samples, labels.to(dtype)), (samples.to(dtype), labels.to(dtype))):
        for name, value in F.multi_rater_figures(a, b, kernels=("iou", "hausdorff")).items():
            if name in expected:
                assert torch.equal(value, expected[name])
        valid = torch.tensor([[True, False, True]] * 3)
        values = F.multi_rater_figures(a, b, valid, mean_prediction=a[:, 0])
        masked = F.multi_rater_figures(samples, labels, valid, mean_prediction=samples[:, 0])
        assert all(torch.equal(value, masked[name]) for name, value in values.items())
        for function in (F.variance_ncc, F.hm_iou):
            assert torch.equal(function(a, b, valid), function(samples, labels, valid))
    drawn = samples.to(dtype)
    assert torch.equal(F.iou_distance(drawn, drawn), F.iou_distance(samples, samples))
    mean = samples.float().mean(1, keepdim=True)
    assert torch.equal(F.brier_score(mean, labels.to(dtype)), F.brier_score(mean, labels))
    assert torch.equal(
        F.empirical_wasserstein_distance(mean, labels.to(dtype), kernel="cross_entropy"),
        F.empirical_wasserstein_distance(mean, labels, kernel="cross_entropy"),
    )


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_masks_of_infinity_are_refused(value):
    samples, labels = draw(19, 5).float(), draw(20, 3)
    samples[0, 0, 0, 0] = value
    for call in (F.generalized_energy_distance, F.dice, F.area_crps, F.variance_ncc):
        with pytest.raises(InputError, match="hold infinity|hold the class|NaN"):
            call(samples, labels)
        with pytest.raises(InputError, match="hold infinity|hold the class|NaN"):
            call(labels, samples)


@pytest.mark.parametrize("elements", [1, 7, 100, 1000])
def test_the_size_of_a_block_does_not_matter(monkeypatch, elements):
    samples, labels = draw(21, 5, classes=3), draw(22, 3, classes=3)
    expected = F.multi_rater_figures(samples, labels)
    monkeypatch.setitem(_overlap._BLOCK_ELEMENTS, "cpu", elements)
    for name, value in F.multi_rater_figures(samples, labels).items():
        assert torch.equal(value, expected[name])


def test_an_image_does_not_depend_on_its_batch():
    samples, labels = draw(23, 4, classes=2), draw(24, 3, classes=2)
    samples[2] *= 3  # another image with a higher class
    together = F.multi_rater_figures(samples, labels, kernels=("iou", "dice", "hausdorff"))
    for index in range(3):
        one = slice(index, index + 1)
        alone = F.multi_rater_figures(samples[one], labels[one], kernels=("iou", "dice", "hausdorff"))
        for name, value in alone.items():
            same(together[name][one], value)


def test_counts_stay_exact_under_autocast_and_for_large_masks():
    samples = torch.ones(1, 2, 300, 300, dtype=torch.bool)
    samples[0, 1, 0, 0] = False
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distance = F.iou_distance(samples[:, :1], samples[:, 1:])
    assert distance.item() == pytest.approx(1 / 90000, rel=1e-5)


def test_an_empty_batch_gives_no_figures():
    none = torch.zeros(0, 2, 4, 4, dtype=torch.uint8)
    assert all(value.shape == (0,) for value in F.multi_rater_figures(none, none).values())


def test_inputs_are_left_alone():
    samples, labels = draw(25, 3), draw(26, 3)
    before = samples.clone(), labels.clone()
    valid = torch.tensor([[True, False, True]] * 3)
    F.multi_rater_figures(samples, labels, valid, kernels=("iou", "hausdorff"))
    assert torch.equal(samples, before[0]) and torch.equal(labels, before[1])


def test_iou_distance_shapes():
    a, b = draw(27, 2, images=6), draw(28, 3, images=6)
    expected = F.iou_distance(a, b)
    assert expected.shape == (6, 2, 3)
    same(F.iou_distance(a[0], b[0]), expected[0])
    same(F.iou_distance(a.view(2, 3, 2, *SIZES_2D), b.view(2, 3, 3, *SIZES_2D), spatial_dims=2).view(6, 2, 3), expected)
    c, d = draw(29, 2, SIZES_3D), draw(30, 3, SIZES_3D)
    same(F.iou_distance(c, d), F.iou_distance(c, d, spatial_dims=3))
    same(F.iou_distance(c[0], d[0], spatial_dims=3), F.iou_distance(c, d)[0])


MASKS = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
BAD = {
    "another image size": (lambda: F.generalized_energy_distance(MASKS, MASKS[..., :3]), "differ in more than"),
    "another batch": (lambda: F.empirical_wasserstein_distance(MASKS, MASKS[:1]), "differ in more than"),
    "no spatial axis": (lambda: F.generalized_energy_distance(MASKS[..., 0, 0], MASKS), r"\(B, N, \*S\)"),
    "no sample": (lambda: F.sample_diversity(MASKS[:, :0]), "N at least 1"),
    "no rater": (lambda: F.dice(MASKS, MASKS[:, :0]), "R at least 1"),
    "rater_valid": (lambda: F.generalized_energy_distance(MASKS, MASKS, torch.ones(2, 2)), "rater_valid has shape"),
    "probabilities": (lambda: F.dice(MASKS + 0.5, MASKS), "threshold or argmax"),
    "nan": (lambda: F.dice(MASKS * math.nan, MASKS), "fractions or NaN"),
    "negative class": (lambda: F.dice(MASKS, MASKS.long() - 1), "class -1"),
    "class beyond": (lambda: F.dice(MASKS + 3, MASKS, num_classes=3), "class 3 where num_classes is 3"),
    "masks of 0 and 255": (lambda: F.dice(MASKS, MASKS + 255), "masks of 0 and 1"),
    "num_classes": (lambda: F.dice(MASKS, MASKS, num_classes=0), "num_classes is 0"),
    "kernel": (lambda: F.empirical_wasserstein_distance(MASKS, MASKS, kernel="l2"), "choose one of iou, dice"),
    "kernel of masks": (lambda: F.multi_rater_figures(MASKS, MASKS, kernels=("cross_entropy",)), "choose one of"),
    "reduction": (lambda: F.dice(MASKS, MASKS, reduction="sum"), "reduction is 'sum'"),
    "no tensor": (lambda: F.dice(MASKS.numpy(), MASKS), "is a ndarray"),
    "leading axes": (lambda: F.iou_distance(MASKS, MASKS[:1]), "leading axes"),
    "sizes": (lambda: F.iou_distance(MASKS, MASKS[..., :2]), "not sets of masks of one size"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case):
    call, message = BAD[case]
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
