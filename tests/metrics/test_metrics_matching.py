"""HM-IoU, D_match and D_max: against trying every assignment, MONAI's Dice, and the laws that tie them together."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_iou

from aleatoric.errors import InputError
from aleatoric.metrics import _transport
from aleatoric.metrics import functional as F

VALID = torch.tensor([[True] * 3, [True, False, True], [False, True, False], [False] * 3])


def draw(seed, number, classes=2, size=(5, 6), images=4, empty=0.3):
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, classes, (images, number, *size))
    maps[rng.random((images, number)) < empty] = 0
    return torch.from_numpy(maps)


def same(ours, expected):
    torch.testing.assert_close(ours, torch.as_tensor(expected, dtype=ours.dtype), atol=1e-6, rtol=1e-5, equal_nan=True)


def monais(score, samples, labels):
    """(N, R) of one image's masks; 1 where both are empty."""
    pairs = [(s[None, None].float(), y[None, None].float()) for s in samples for y in labels]
    values = [1.0 if not (s.any() or y.any()) else score(s, y, ignore_empty=False).item() for s, y in pairs]
    return np.array(values).reshape(len(samples), len(labels))


def class_scores(score, samples, labels, known):
    """(N, R) mean over the classes, binary masks by MONAI."""
    shown = sorted(({int(v) for v in samples.unique()} | {int(v) for v in labels.unique()}) - {0})
    classes = range(1, known) if known else shown
    scores = [monais(score, samples == c, labels == c) for c in classes]
    return np.mean(scores, 0) if scores else np.ones((len(samples), len(labels)))


def best_assignment(scores):
    """Mean of the best one-to-one assignment, every one of them tried; the larger side's surplus left out."""
    scores = scores if scores.shape[0] <= scores.shape[1] else scores.T
    rows = range(scores.shape[0])
    return max(
        np.mean([scores[i, j] for i, j in zip(rows, order)])
        for order in itertools.permutations(range(scores.shape[1]), len(rows))
    )


def replicated(scores):
    many = math.lcm(*scores.shape)
    return scores.repeat(many // scores.shape[0], 0).repeat(many // scores.shape[1], 1)


def twin(reduce, score, samples, labels, valid, known=None):
    rows = []
    for s, y, v in zip(samples, labels, valid, strict=True):
        rows.append(reduce(class_scores(score, s, y[v], known)) if v.any() else math.nan)
    return torch.tensor(rows)


CASES = [
    pytest.param(number, classes, known, size, id=f"{number}-samples-{known or 'unknown'}-of-{classes}-{len(size)}d")
    for number, classes, known, size in (
        (1, 2, None, (5, 6)),
        (6, 2, None, (5, 6)),
        (2, 4, None, (5, 6)),
        (3, 3, 5, (5, 6)),
        (6, 3, 3, (3, 4, 2)),
    )
]


@pytest.mark.parametrize(("number", "classes", "known", "size"), CASES)
def test_equal_to_trying_every_assignment(number, classes, known, size):
    samples, labels = draw(1, number, classes, size), draw(2, 3, classes, size)
    samples[0, :], labels[0, 1:] = 0, 0
    expected = {
        "hm_iou": twin(lambda m: best_assignment(replicated(m)), compute_iou, samples, labels, VALID, known),
        "dice_matched": twin(lambda m: best_assignment(replicated(m)), compute_dice, samples, labels, VALID, known),
        "dice_max": twin(lambda m: m.max(0).mean(), compute_dice, samples, labels, VALID, known),
    }
    one_to_one = twin(best_assignment, compute_dice, samples, labels, VALID, known)
    labels[~VALID] = 255
    figures = F.multi_rater_figures(samples, labels, VALID, num_classes=known)
    for name, value in expected.items():
        same(getattr(F, name)(samples, labels, VALID, num_classes=known), value)
        same(figures[name], value)
    same(F.dice_matched(samples, labels, VALID, num_classes=known, surplus="ignore"), one_to_one)


def test_dice_max_of_every_rater():
    samples, labels = draw(3, 5, 3), draw(4, 3, 3)
    ours = F.dice_max(samples, labels, VALID, reduction="raters")
    assert ours.shape == (4, 3) and torch.equal(ours.isnan(), ~VALID)
    pairs = F.dice(samples, labels, rater_valid=VALID, reduction="none")
    for b, r in VALID.nonzero().tolist():
        assert ours[b, r] == max(pairs[b, :, r].tolist())
    same(F.dice_max(samples, labels, VALID), ours.nanmean(1))


def test_one_assignment_for_the_distance_and_its_score(monkeypatch):
    calls, original = [], _transport.linear_sum_assignment
    monkeypatch.setattr(_transport, "linear_sum_assignment", lambda m: calls.append(1) or original(m))
    F.multi_rater_figures(draw(5, 6), draw(6, 3))
    assert len(calls) == 4 * 2  # images x kernels


def test_empty_masks_agree_and_two_that_differ_in_it_have_nothing_in_common():
    empty, drawn = torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
    half = torch.cat([empty, drawn], 1)
    for function in (F.hm_iou, F.dice_matched, F.dice_max):
        assert function(empty, empty).item() == 1 and function(empty, drawn).item() == 0
        assert function(half, half).item() == 1
    assert F.hm_iou(half, empty).item() == F.dice_matched(half, empty).item() == 0.5
    assert F.dice_max(half, empty).item() == 1 and F.dice_max(empty, half).item() == 0.5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(1, 6), raters=st.integers(1, 4), classes=st.integers(2, 3))
def test_laws(seed, number, raters, classes):
    rng = torch.Generator().manual_seed(seed)
    samples, labels = draw(seed, number, classes, images=2), draw(seed + 1, raters, classes, images=2)
    functions = {
        "hm_iou": F.hm_iou,
        "matched": F.dice_matched,
        "one_to_one": lambda *a: F.dice_matched(*a, surplus="ignore"),
        "max": F.dice_max,
    }
    values = {name: function(samples, labels) for name, function in functions.items()}
    order = torch.randperm(number, generator=rng), torch.randperm(raters, generator=rng)
    one_more = torch.cat([torch.full_like(labels[:, :1], 255), labels], 1)
    there = torch.tensor([[False] + [True] * raters] * 2)
    for name, function in functions.items():
        same(function(samples[:, order[0]], labels[:, order[1]]), values[name])
        same(function(one_more[:, 1:], one_more, there), torch.ones(2))
        same(function(samples, one_more, there), values[name])
        assert (values[name] >= 0).all() and (values[name] <= 1 + 1e-6).all()
    for name in ("hm_iou", "matched", "max"):  # a set and its replication are one law
        same(functions[name](samples.repeat(1, 2, 1, 1), labels.repeat(1, 3, 1, 1)), values[name])
    tiny = 1e-6
    assert (values["hm_iou"] <= values["matched"] + tiny).all()  # IoU is never above Dice
    assert (values["matched"] >= F.dice(samples, labels) - tiny).all()  # the best coupling against the independent one
    if number >= raters:
        assert (values["one_to_one"] >= values["matched"] - tiny).all()
        assert (values["max"] >= values["one_to_one"] - tiny).all()
    if number == raters:
        same(values["one_to_one"], values["matched"])
    assert (F.dice_max(torch.cat([samples, labels[:, :1]], 1), labels) >= values["max"] - tiny).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: F.dice_matched(s, s, surplus="drop"), "surplus is 'drop'"),
        (lambda s: F.dice_max(s, s, reduction="none"), "pass 'mean' or 'raters'"),
        (lambda s: F.hm_iou(s, s[..., :2]), "differ in more than"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(InputError, match=message) as error:
        call(draw(7, 2))
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
