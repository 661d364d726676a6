"""Dice of samples, of the mean prediction, by class and united: against loops over sets of pixels and MONAI."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import DiceMetric

from aleatoric.errors import InputError
from aleatoric.metrics import MultiRaterMetrics, _overlap
from aleatoric.metrics import functional as F
from aleatoric.metrics.definitions import definition

DICE = ("dice", "dice_nonempty", "dice_max", "dice_matched")  # whose twins stand with the other figures' tests
SIZES = [(6, 7), (3, 4, 5)]


def draw(seed, number, classes, size=(6, 7), images=3, empty=0.3):
    """(images, number, *size) class maps; a share of them is empty, another lacks a class."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, classes, (images, number, *size))
    maps[rng.random((images, number)) < empty] = 0
    lacking = rng.random((images, number)) < empty
    maps[lacking] = np.where(maps[lacking] == classes - 1, 0, maps[lacking])
    return torch.from_numpy(maps)


def pixels(mask):
    return {tuple(p) for p in np.argwhere(np.asarray(mask))}


def twin_score(a, b):
    """2 TP / (2 TP + FN + FP) as SSN section 5.2 writes it; 1 where there is nothing to find and nothing was found."""
    a, b = pixels(a), pixels(b)
    positives = 2 * len(a & b) + len(b - a) + len(a - b)
    return 2 * len(a & b) / positives if positives else 1.0


def twin_average(a, b, classes):
    return float(np.mean([twin_score(a == c, b == c) for c in classes])) if classes else 1.0


def present(*sets):
    return sorted({int(v) for maps in sets for m in maps for v in m.unique()} - {0})


def mean_of(values):
    return float(np.mean(values)) if values else math.nan


def shown_score(pairs, name):
    """Mean over the pairs of which one shows the class."""
    masks = [(a > 0, b > 0) if name == "whole" else (a == name, b == name) for a, b in pairs]
    return mean_of([twin_score(a, b) for a, b in masks if a.any() or b.any()])


def twin_figures(samples, labels, mean, valid, num_classes, known):
    """One image after the other, one pair after the other; ``known``: averages run over all classes."""
    rows = []
    for s, y, m, v in zip(samples, labels, mean, valid):
        y = [rater for rater, there in zip(y, v) if there]
        classes = list(range(1, num_classes))
        own = classes if known else present(s, y)
        all_of_them = classes if known else present(s, y, [m])
        scores = [mean_of([twin_average(one, rater, own) for rater in y]) for one in s]
        compared = [mean_of([twin_average(one, rater, all_of_them) for rater in y]) for one in s]
        of_mean = mean_of([twin_average(m, rater, all_of_them) for rater in y])
        seen = [(rater, [c for c in classes if (rater == c).any()]) for rater in y]
        row = {
            "dice_quantile_95": float(np.quantile(scores, 0.95)),
            "dice_between_raters": mean_of([twin_average(a, b, own) for a, b in combinations(y, 2)]),
            "dice_mean_prediction": of_mean,
            "dice_nonempty_mean_prediction": mean_of([twin_average(m, rater, cs) for rater, cs in seen if cs]),
            "share_better_than_mean": mean_of([one > of_mean + 1e-9 for one in compared]) if y else math.nan,
        }
        if num_classes > 2 and known:
            for c in classes:
                row[f"dice_class_{c}"] = mean_of([twin_score(one == c, rater == c) for one in s for rater in y])
                row[f"dice_class_{c}_mean_prediction"] = mean_of([twin_score(m == c, rater == c) for rater in y])
            row["dice_whole"] = mean_of([twin_score(one > 0, rater > 0) for one in s for rater in y])
            row["dice_whole_mean_prediction"] = mean_of([twin_score(m > 0, rater > 0) for rater in y])
            for name in [*classes, "whole"]:
                pairs = [(one, rater) for one in s for rater in y]
                row[f"dice_shown_{name}"] = shown_score(pairs, name)
                row[f"dice_shown_{name}_mean_prediction"] = shown_score([(m, rater) for rater in y], name)
        rows.append(row)
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def same(ours, expected):
    torch.testing.assert_close(ours, expected.to(ours.dtype), atol=1e-6, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("classes", "known"), [(2, False), (2, True), (4, False), (4, True)])
def test_figures_equal_to_loops_over_sets_of_pixels(size, missing, classes, known):
    samples, labels = draw(1, 6, classes, size, images=5), draw(2, 3, classes, size, images=5)
    mean = draw(3, 1, classes, size, images=5)[:, 0]
    samples[0], labels[0], mean[0] = 0, 0, 0  # nobody sees anything
    samples[4] *= samples[4] < classes - 1  # the mean prediction alone shows the last class
    labels[4] *= labels[4] < classes - 1
    mean[4, 0, 0] = classes - 1
    mean[2] = samples[2, 1]  # one sample equals it
    valid = torch.ones(5, 3, dtype=torch.bool)
    if missing:
        valid[1, 0] = valid[2, 1:] = valid[3] = False
        labels[~valid] = 255
    options = {"num_classes": classes if known else None}
    ours = F.multi_rater_figures(samples, labels, valid, mean_prediction=mean, **options)
    without = F.multi_rater_figures(samples, labels, valid, **options)
    twin = twin_figures(samples, labels, mean, valid, classes, known)
    assert ours.keys() - without.keys() == {name for name in twin if "mean" in name}
    for name, value in without.items():
        assert torch.equal(ours[name].nan_to_num(9), value.nan_to_num(9)), name  # nothing else looks at it
    assert {name for name in ours if name.startswith("dice") or "share" in name} == {*twin, *DICE}
    for name, value in twin.items():
        assert ours[name].shape == (5,) and ours[name].dtype == torch.float32
        same(ours[name], value)


@pytest.mark.parametrize("size", SIZES)
def test_functions_one_by_one_equal_the_figures(size):
    samples, labels, mean = draw(4, 5, 4, size), draw(5, 3, 4, size), draw(6, 1, 4, size)[:, 0]
    valid = torch.tensor([[True, True, True], [True, False, True], [False, False, False]])
    options = {"rater_valid": valid, "num_classes": 4}
    figures = F.multi_rater_figures(samples, labels, mean_prediction=mean, **options)
    by_class = F.class_dice(samples, labels, **options)
    of_mean = F.class_dice(mean.unsqueeze(1), labels, **options)
    assert by_class.shape == (3, 5, 3, 4) and by_class.isnan().all((1, 3)).equal(~valid)
    for position, name in enumerate(("dice_class_1", "dice_class_2", "dice_class_3", "dice_whole")):
        same(figures[name], by_class[..., position].flatten(1).nanmean(1))
        same(figures[f"{name}_mean_prediction"], of_mean[..., position].flatten(1).nanmean(1))
    same(figures["dice_mean_prediction"], F.dice(mean.unsqueeze(1), labels, **options))
    same(figures["dice_nonempty_mean_prediction"], F.dice(mean.unsqueeze(1), labels, True, **options))
    same(figures["dice"], by_class[..., :3].flatten(1).nanmean(1))
    scores = F.dice(samples, labels, reduction="raters", **options)
    same(scores, F.dice(samples, labels, reduction="none", **options).nanmean(2))
    same(figures["dice_quantile_95"], scores.quantile(0.95, dim=1))
    same(figures["share_better_than_mean"], F.share_better_than_mean(samples, labels, mean, **options))
    for quantile in (0.0, 0.3, 1.0):
        expected = torch.from_numpy(np.quantile(scores.numpy(), quantile, axis=1))
        same(F.dice_quantile(samples, labels, quantile, **options), expected)


def test_monai_agrees():
    """DiceMetric, where empty masks are left out, and class by class with one rater."""
    samples, labels = draw(7, 1, 4, images=12, empty=0.2), draw(8, 1, 4, images=12, empty=0.2)
    for ignore_empty, both_empty in ((True, math.nan), (False, 1.0)):
        monai = DiceMetric(include_background=False, reduction="none", num_classes=4, ignore_empty=ignore_empty)
        expected = monai(samples, labels)
        ours = F.class_dice(samples, labels, num_classes=4, both_empty=both_empty)[:, 0, 0, :3]
        drawn = torch.stack([(labels == c).flatten(1).any(1) for c in (1, 2, 3)], 1)
        found = torch.stack([(samples == c).flatten(1).any(1) for c in (1, 2, 3)], 1)
        agreed = drawn if ignore_empty else drawn | found | True
        assert agreed.any() and not (drawn | found).all()
        same(ours[agreed], expected[agreed])
        assert (ours[~drawn & ~found].isnan() if ignore_empty else ours[~drawn & ~found] == 1).all()
        assert (ours[~drawn & found] == 0).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 4), st.integers(2, 5), st.booleans())
def test_laws(seed, n, r, classes, known):
    samples, labels, mean = draw(seed, n, classes), draw(seed + 1, r, classes), draw(seed + 2, 1, classes)[:, 0]
    options = {"num_classes": classes if known else None}
    figures = F.multi_rater_figures(samples, labels, mean_prediction=mean, **options)
    order = torch.Generator().manual_seed(seed)
    samples, labels = samples[:, torch.randperm(n, generator=order)], labels[:, torch.randperm(r, generator=order)]
    mixed = F.multi_rater_figures(samples, labels, mean_prediction=mean, **options)
    for name, value in figures.items():
        same(mixed[name], value)
        if name.startswith(("dice", "share")):
            assert (value.isnan() | ((value >= 0) & (value <= 1))).all(), name
    # Where all samples are the mean prediction they are as good as it is, and their quantile is their score.
    figures = F.multi_rater_figures(mean.unsqueeze(1).expand_as(samples), labels, mean_prediction=mean, **options)
    assert (figures["share_better_than_mean"] == 0).all()
    same(figures["dice_quantile_95"], figures["dice_mean_prediction"])
    same(figures["dice"], figures["dice_mean_prediction"])
    same(figures["dice_nonempty"], figures["dice_nonempty_mean_prediction"])
    # A perfect answer scores 1, and no sample is better.
    labels = mean.unsqueeze(1).expand_as(labels)
    figures = F.multi_rater_figures(samples, labels, mean_prediction=mean, **options)
    for name, value in figures.items():
        if name.endswith("_mean_prediction"):
            assert (value.isnan() if "nonempty" in name and not mean.any() else value.nan_to_num(1) == 1).all(), name
    assert (figures["share_better_than_mean"] == 0).all()


def test_names_of_classes_do_not_matter_to_the_whole():
    samples, labels, mean = draw(11, 4, 4), draw(12, 2, 4), draw(13, 1, 4)[:, 0]
    renamed = torch.tensor([0, 3, 1, 2])
    first = F.multi_rater_figures(samples, labels, mean_prediction=mean, num_classes=4)
    other = F.multi_rater_figures(renamed[samples], renamed[labels], mean_prediction=renamed[mean], num_classes=4)
    for c in (1, 2, 3):
        for end in ("", "_mean_prediction"):
            for figure in ("dice_class", "dice_shown"):
                same(other[f"{figure}_{renamed[c]}{end}"], first[f"{figure}_{c}{end}"])
    for name in first.keys() - {n for n in first if "class" in n or "shown" in n}:
        same(other[name], first[name])
    binary = F.multi_rater_figures(samples > 0, labels > 0, mean_prediction=mean > 0)
    same(first["dice_whole"], binary["dice"])
    same(first["dice_whole_mean_prediction"], binary["dice_mean_prediction"])


def test_empty_masks():
    empty, drawn = torch.zeros(1, 1, 3, 3, dtype=torch.uint8), torch.ones(1, 1, 3, 3, dtype=torch.uint8)
    both = torch.cat([empty, drawn], 1)
    for mean, dice, nonempty in ((empty, 0.5, 0.0), (drawn, 0.5, 1.0)):
        figures = F.multi_rater_figures(both, both, mean_prediction=mean[:, 0])
        assert figures["dice_mean_prediction"].item() == dice
        assert figures["dice_nonempty_mean_prediction"].item() == nonempty
    figures = F.multi_rater_figures(empty, empty, mean_prediction=empty[:, 0], num_classes=3)
    for name in ("dice_mean_prediction", "dice_class_2", "dice_whole", "dice_quantile_95"):
        assert figures[name].item() == 1, name
    assert figures["dice_nonempty_mean_prediction"].isnan() and figures["share_better_than_mean"].item() == 0
    assert F.class_dice(empty, empty, num_classes=3, both_empty=math.nan).isnan().all()
    assert (F.class_dice(drawn, empty, num_classes=2, both_empty=math.nan) == 0).all()


def test_a_class_that_only_the_mean_prediction_shows_counts_against_it():
    rater = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    rater[..., :2, :] = 1
    mean = rater[:, 0].clone()
    mean[:, 3, 3] = 2
    figures = F.multi_rater_figures(rater, rater, mean_prediction=mean)
    assert figures["dice_mean_prediction"].item() == 0.5 and figures["share_better_than_mean"].item() == 1
    assert figures["dice"].item() == 1


def test_the_mean_prediction_costs_no_further_pass(monkeypatch):
    samples, labels, mean = draw(14, 4, 3), draw(15, 2, 3), draw(16, 1, 3)[:, 0]
    counts, original = [], _overlap.count_intersections
    monkeypatch.setattr(_overlap, "count_intersections", lambda *a: counts.append(1) or original(*a))
    F.multi_rater_figures(samples, labels, mean_prediction=mean, num_classes=3)
    assert len(counts) == 1


@pytest.mark.parametrize("elements", [1, 50, 1000])
def test_the_size_of_a_block_does_not_matter(monkeypatch, elements):
    samples, labels, mean = draw(17, 4, 3, empty=0), draw(18, 2, 3, empty=0), draw(19, 1, 3)[:, 0]
    expected = F.multi_rater_figures(samples, labels, mean_prediction=mean, num_classes=3)
    monkeypatch.setitem(_overlap._BLOCK_ELEMENTS, "cpu", elements)
    for name, value in F.multi_rater_figures(samples, labels, mean_prediction=mean, num_classes=3).items():
        assert torch.equal(value, expected[name])


def test_one_pixel_in_seventeen_million_is_counted():
    """float32 ends at 2^24 = 16,777,216: neither counts nor scores may go through it before they are compared."""
    side = 4099
    rater = torch.ones(1, 1, 1, 1, dtype=torch.uint8).expand(1, 1, side, side)
    mean = rater[:, 0].clone()
    mean[0, 0, 0] = 0
    assert mean.numel() > 2**24
    overlap = _overlap.measure_overlap(rater, rater, mean_prediction=mean)
    every = side**2
    expected = [[every - 1] * 3, [every - 1, every, every], [every - 1, every, every]]
    assert overlap.intersection[0, 0].tolist() == expected
    assert F.share_better_than_mean(rater, rater, mean).item() == 1


MASKS = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
BAD = {
    "quantile": (lambda: F.dice_quantile(MASKS, MASKS, 95), "quantile is 95"),
    "num_classes": (lambda: F.class_dice(MASKS, MASKS, num_classes=1), "num_classes is 1"),
    "class beyond": (lambda: F.class_dice(MASKS + 3, MASKS, num_classes=3), "class 3 where num_classes is 3"),
    "mean of all": (lambda: F.share_better_than_mean(MASKS, MASKS, MASKS), "mean_prediction has shape"),
    "mean's class": (
        lambda: F.multi_rater_figures(MASKS, MASKS, mean_prediction=MASKS[:, 0] + 2, num_classes=2),
        "mean predictions hold the class 2",
    ),
    "names": (
        lambda: F.multi_rater_figures(MASKS, MASKS, num_classes=3, class_names=["a", "b"]),
        r"class_names are \['a', 'b'\] where num_classes is 3",
    ),
    "equal names": (
        lambda: F.multi_rater_figures(MASKS, MASKS, num_classes=3, class_names=["a", "b", "b"]),
        "another name",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case):
    call, message = BAD[case]
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_a_class_that_nobody_shows_is_left_out_of_the_shown_figures():
    """Ten cases, a class in seven of them: 3 x 1 and 7 x 2/3 make .767 with, .667 without the empty ones."""
    case = torch.tensor([1, 1, 0, 0, 2, 2])
    rater = torch.tensor([1, 0, 0, 0, 2, 2])
    empty = torch.tensor([0, 0, 0, 0, 2, 2])
    samples = torch.stack([*[case] * 7, *[empty] * 3])[:, None, None]  # (10, 1, 1, 6)
    labels = torch.stack([*[rater] * 7, *[empty] * 3])[:, None, None]
    figures = F.multi_rater_figures(samples, labels, num_classes=3, mean_prediction=samples[:, 0])
    for suffix in ("", "_mean_prediction"):
        assert float(figures[f"dice_class_1{suffix}"].nanmean()) == pytest.approx(0.3 + 0.7 * 2 / 3)
        assert float(figures[f"dice_shown_1{suffix}"].nanmean()) == pytest.approx(2 / 3)
        assert torch.equal(figures[f"dice_shown_2{suffix}"], figures[f"dice_class_2{suffix}"])
        assert torch.equal(figures[f"dice_shown_whole{suffix}"], figures[f"dice_whole{suffix}"])
    assert definition("dice_shown_oedema") != definition("dice_class_oedema") and definition("dice_shown_whole")


@pytest.mark.parametrize(
    "names", [["bg", "whole", "b"], ["bg", "a b", "a_b"], ["bg", "a", "a_mean_prediction"], ["bg", " a", "a "]]
)
def test_names_that_would_give_two_figures_one_name_are_refused(names):
    maps = draw(1, 2, 3)
    with pytest.raises(InputError, match="rename a class"):
        F.multi_rater_figures(maps, maps, num_classes=3, class_names=names)
    with pytest.raises(InputError, match="rename a class"):
        MultiRaterMetrics(class_names=names)
    assert F.multi_rater_figures(maps > 0, maps > 0, num_classes=2, class_names=["bg", "whole"])  # has none by class
