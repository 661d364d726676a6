"""Calibration, Brier and QUBIQ scores against MONAI, scikit-learn and brute force, and their laws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric, compute_dice
from monai.metrics.calibration import calibration_binning
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from aleatoric.errors import InputError
from aleatoric.metrics import BrierScore, CalibrationError, QUBIQScore, ReliabilityBins, mark_missing
from aleatoric.metrics import functional as F

LAYOUTS = [(1, (9, 7)), (3, (9, 7)), (1, (5, 6, 4)), (4, (5, 6, 4)), (2, (8, 8))]
SCORES = {
    "ece": lambda *a: F.calibration_error(F.reliability_bins(*a)),
    "ace": lambda *a: F.calibration_error(F.reliability_bins(*a), "average"),
    "brier": F.brier_score,
    "qubiq": F.qubiq_score,
}


def scene(channels, size, images=3, raters=4, seed=1):
    """Mean probabilities (B, K, *S) and labels (B, R, *S) that have to do with each other."""
    chance = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, max(channels, 2), *size, generator=chance)
    mean = logits.softmax(1)
    noise = torch.rand(images, raters, *mean.shape[1:], generator=chance)
    labels = (mean.log()[:, None] - (-noise.log()).log()).argmax(2)  # Gumbel: each rater draws from the mean
    return mean[:, -1:] if channels == 1 else mean, labels


def foreground(mean, labels):
    """Probabilities and shares of raters (B, C, *S)."""
    classes = range(1, max(mean.shape[1], 2))
    shares = torch.stack([(labels == c).double().mean(1) for c in classes], dim=1)
    return mean[:, -len(classes) :], shares


@pytest.mark.parametrize(("channels", "size"), LAYOUTS)
def test_bins_are_monais(channels, size):
    mean, labels = scene(channels, size)
    predicted, shares = foreground(mean, labels)
    for number in (1, 10, 15):
        bins = F.reliability_bins(mean, labels, num_bins=number)
        probability, share, pixels = calibration_binning(predicted, shares, num_bins=number)
        assert torch.equal(bins[..., 0].float(), pixels)
        some = pixels > 0
        torch.testing.assert_close((bins[..., 1] / bins[..., 0])[some].float(), probability[some])
        torch.testing.assert_close((bins[..., 2] / bins[..., 0])[some].float(), share[some])


@pytest.mark.parametrize("reduction", ["expected", "average"])
@pytest.mark.parametrize(("channels", "size"), [(1, (9, 7)), (3, (9, 7)), (4, (5, 6, 4))])
def test_errors_of_one_rater_are_monais(channels, size, reduction):
    mean, labels = scene(channels, size, raters=1)
    predicted, shares = foreground(mean, labels)
    metric = CalibrationErrorMetric(num_bins=15, calibration_reduction=reduction)
    metric(predicted, shares)
    found = F.calibration_error(F.reliability_bins(mean, labels), reduction)
    torch.testing.assert_close(found, metric.get_buffer().mean(1))
    ours = CalibrationError(reduction)
    ours(mean, labels)
    torch.testing.assert_close(ours.aggregate(), metric.aggregate().squeeze())


def test_the_diagram_of_one_rater_is_scikit_learns():
    mean, labels = scene(1, (40, 30), images=1, raters=1)
    share, probability = calibration_curve(labels.flatten(), mean.flatten(), n_bins=15)
    bins = F.reliability_bins(mean, labels)[0, 0]
    bins = bins[bins[:, 0] > 0]
    np.testing.assert_allclose(bins[:, 1] / bins[:, 0], probability, rtol=1e-6)
    np.testing.assert_allclose(bins[:, 2] / bins[:, 0], share, rtol=1e-6)


@pytest.mark.parametrize("number", [2, 5, 10, 15, 20, 49])
def test_an_edge_belongs_to_the_bin_above_and_1_to_the_last(number):
    edges = torch.arange(number + 1) / number
    bins = F.reliability_bins(edges.view(1, 1, -1), torch.zeros(1, 1, number + 1), num_bins=number)[0, 0]
    assert bins[:, 0].tolist() == [1] * (number - 1) + [2]
    for distance, counts in ((3e-6, [1] * number), (3e-7, [0] + [1] * (number - 2) + [2])):  # less is rounding
        below = (edges - distance)[1:]
        bins = F.reliability_bins(below.view(1, 1, -1), torch.zeros(1, 1, number), num_bins=number)[0, 0]
        assert bins[:, 0].tolist() == counts


def test_bins_of_a_data_set_are_the_sum_of_its_cases():
    mean, labels = scene(3, (9, 7), images=6)
    metric = ReliabilityBins(10)
    for some in (slice(0, 1), slice(1, 4), slice(4, 6)):
        metric(mean[some], labels[some])
    swapped = (mean.transpose(0, 1).flatten(1, 2)[None], labels.transpose(0, 1).flatten(1, 2)[None])
    torch.testing.assert_close(metric.aggregate(), F.reliability_bins(*swapped, num_bins=10)[0])


def test_sums_of_many_pixels_stay_exact():
    # float32 would stop at 2^24 = 16,777,216 pixels of one bin
    pixels = 2**24 + 64
    bins = F.reliability_bins(torch.full((1, 1, pixels), 0.5), torch.ones(1, 1, pixels, dtype=torch.uint8), num_bins=1)
    assert bins.flatten().tolist() == [pixels, pixels / 2, pixels]


def test_of_a_calibrated_law_the_error_vanishes():
    chance = torch.Generator().manual_seed(1)
    errors = []
    for pixels in (10**3, 10**5, 3 * 10**6):
        mean = torch.rand(1, 1, pixels, generator=chance)
        labels = (torch.rand(1, 1, pixels, generator=chance) < mean).to(torch.uint8)
        errors.append(F.calibration_error(F.reliability_bins(mean, labels)).item())
    assert errors[0] > 5 * errors[1] > 15 * errors[2]
    assert errors[2] < 1e-3
    shifted = (mean * 0.9).clamp(max=1)
    assert F.calibration_error(F.reliability_bins(shifted, labels)).item() == pytest.approx(0.05, abs=1e-3)


def test_the_average_error_weighs_full_and_scarce_bins_alike():
    # 98 certain and right pixels, 2 of probability .5 that nobody marks
    mean = torch.cat([torch.zeros(98), torch.full((2,), 0.5)]).view(1, 1, -1)
    bins = F.reliability_bins(mean, torch.zeros(1, 3, 100))
    assert F.calibration_error(bins).item() == pytest.approx(0.02 * 0.5)
    assert F.calibration_error(bins, "average").item() == pytest.approx(0.5 / 2)


@pytest.mark.parametrize(("channels", "size"), LAYOUTS)
def test_brier_is_the_raters_mean_less_their_disagreement(channels, size):
    mean, labels = scene(channels, size)
    predicted, shares = foreground(mean, labels)
    found = F.brier_score(mean, labels)
    for image in range(len(mean)):
        scores = []
        for c, rater in itertools.product(range(predicted.shape[1]), range(4)):
            truth, probability = (labels[image, rater] == c + 1).flatten(), predicted[image, c].flatten()
            scores.append(brier_score_loss(truth, probability.double()))
        disagreement = (shares[image] * (1 - shares[image])).mean().item()
        assert found[image].item() == pytest.approx(np.mean(scores) - disagreement, abs=1e-6)


def slow_qubiq(mean, labels, thresholds):
    """One comparison per threshold, with MONAI's Dice."""
    predicted, shares = foreground(mean, labels)
    scores = []
    for threshold in thresholds:
        a, b = (predicted.double() > threshold).float(), (shares > threshold).float()
        dice = compute_dice(a, b, ignore_empty=False)  # both empty: 1
        alone = (a.flatten(2).sum(-1) > 0) & (b.flatten(2).sum(-1) == 0)
        scores.append(dice.masked_fill(alone, 0.0))
    return torch.stack(scores).mean((0, 2))


@pytest.mark.parametrize("raters", [1, 3, 7])
@pytest.mark.parametrize("thresholds", [F.QUBIQ_THRESHOLDS, (0.1, 0.3, 0.5, 0.7, 0.9), (0.0,), (0.5,)])
@pytest.mark.parametrize(("channels", "size"), LAYOUTS)
def test_qubiq_is_dice_at_every_threshold(channels, size, thresholds, raters):
    mean, labels = scene(channels, size, raters=raters)
    found = F.qubiq_score(mean, labels, thresholds=thresholds)
    torch.testing.assert_close(found, slow_qubiq(mean, labels, thresholds))
    metric = QUBIQScore(thresholds)
    metric(mean, labels)
    torch.testing.assert_close(metric.aggregate(), found.mean())


@pytest.mark.parametrize("raters", [2, 5, 10])
def test_a_share_that_equals_the_threshold_is_not_above_it(raters):
    # k of 10 raters at a threshold of k / 10: the floats have to be equal, and the prediction's with them
    marked = torch.arange(raters + 1)
    labels = (torch.arange(raters).view(1, -1, 1) < marked.view(1, 1, -1)).to(torch.uint8)
    mean = (marked / raters).view(1, 1, -1)
    for k in range(raters):
        below = torch.where(mean <= k / 10, torch.zeros(()), mean)
        assert F.qubiq_score(mean, labels, thresholds=[k / 10]).item() == 1.0
        assert F.qubiq_score(below, labels, thresholds=[k / 10]).item() == 1.0


@pytest.mark.parametrize("noise", [-3e-7, 3e-7])
def test_a_prediction_that_equals_the_threshold_but_for_rounding_is_not_above_it(noise):
    mean = torch.tensor([0.3, 0.7, 1.0]).view(1, 1, -1)
    labels = (torch.arange(10).view(1, -1, 1) < 10 * mean.round(decimals=1)).to(torch.uint8)
    exact = F.qubiq_score(mean, labels)
    assert F.qubiq_score((mean + noise).clamp(max=1), labels) == exact == 1
    assert F.qubiq_score(mean + torch.tensor([3e-6, 3e-6, 0]), labels) < 1
    tiny = torch.tensor([[[1e-9, 1.0]]])
    assert F.qubiq_score(tiny, torch.ones(1, 1, 2), thresholds=[0.0]).item() == 1  # 0 has no rounding


def test_qubiq_of_empty_masks():
    empty, full = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    nobody, everybody = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert F.qubiq_score(empty, nobody).item() == F.qubiq_score(full, everybody).item() == 1.0
    assert F.qubiq_score(empty, everybody).item() == F.qubiq_score(full, nobody).item() == 0.0
    # one rater of three is above the thresholds .1, .2 and .3
    assert F.qubiq_score(empty, torch.stack([full, empty, empty], dim=1)[:, :, 0]).item() == pytest.approx(6 / 9)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("channels", [1, 3])
def test_order_of_raters_and_of_pixels_does_not_matter(channels, score):
    mean, labels = scene(channels, (9, 7))
    first = SCORES[score](mean, labels)
    torch.testing.assert_close(SCORES[score](mean, labels[:, [2, 0, 3, 1]]), first)
    turned = SCORES[score](mean.flip(-1).transpose(-1, -2), labels.flip(-1).transpose(-1, -2))
    torch.testing.assert_close(turned, first)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("junk", [0, 1, 255])
def test_a_missing_rater_is_one_less(channels, junk, score):
    mean, labels = scene(channels, (9, 7))
    expected = SCORES[score](mean, labels[:, :3])
    labels[:, 3] = junk
    valid = torch.tensor([[True, True, True, False]]).repeat(3, 1)
    torch.testing.assert_close(SCORES[score](mean, labels, valid), expected)
    valid[1] = False
    found = SCORES[score](mean, labels, valid)
    assert found.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]])
    assert F.reliability_bins(mean, labels, valid)[1].abs().sum() == 0


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_any_type_of_labels(kind, score):
    mean, labels = scene(1, (9, 7))
    torch.testing.assert_close(SCORES[score](mean, labels.to(kind)), SCORES[score](mean, labels))


@pytest.mark.parametrize(
    ("metric", "score"),
    [
        (CalibrationError(), "ece"),
        (CalibrationError("average"), "ace"),
        (BrierScore(), "brier"),
        (QUBIQScore(), "qubiq"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_classes_take_batches_lists_and_marked_raters(metric, score, channels):
    mean, labels = scene(channels, (9, 7))
    valid = torch.tensor([[True, True, True, False], [True] * 4, [False] * 4])
    expected = SCORES[score](mean, labels, valid)
    metric.reset()
    metric(mean, labels, rater_valid=valid)
    metric(list(mean), list(mark_missing(labels, valid)))
    torch.testing.assert_close(metric.per_case()[:, 0], expected.repeat(2), equal_nan=True)
    torch.testing.assert_close(metric.aggregate(), expected.nanmean())


def test_three_hundred_raters_are_counted():
    labels = torch.zeros(1, 300, 1, 2)
    labels[:, :270, :, 0] = 1
    assert F.brier_score(torch.tensor([[[[0.9, 0.0]]]]), labels).item() == pytest.approx(0, abs=1e-12)


MEAN, LABELS = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("mean", "labels", "options", "words"),
    [
        (MEAN + 1, LABELS, {}, "outside"),
        (MEAN * math.nan, LABELS, {}, "outside"),
        (MEAN.long(), LABELS, {}, "pass probabilities"),
        (MEAN[0, 0], LABELS, {}, "pass probabilities"),
        (MEAN, LABELS[..., :3], {}, "labels have shape"),
        (MEAN, LABELS + 2, {}, "the class 2"),
        (MEAN.expand(1, 3, 4, 4), LABELS + 3, {}, "the class 3"),
        (MEAN, LABELS, {"num_classes": 3}, "num_classes"),
        (MEAN, LABELS, {"rater_valid": torch.ones(1, 3)}, "rater_valid"),
    ],
)
@pytest.mark.parametrize("score", [F.reliability_bins, F.brier_score, F.qubiq_score])
def test_what_has_no_score_is_refused(mean, labels, options, words, score):
    with pytest.raises(InputError, match=words):
        score(mean, labels, **options)


def test_wrong_options_are_refused():
    for thresholds in ([], [0.5, 0.4], [0.5, 0.5], [-0.1], [1.0]):
        with pytest.raises(InputError, match="thresholds"):
            F.qubiq_score(MEAN, LABELS, thresholds=thresholds)
    for call in (lambda: F.reliability_bins(MEAN, LABELS, num_bins=0), lambda: ReliabilityBins(0)):
        with pytest.raises(InputError, match="num_bins"):
            call()
    for call in (lambda: F.calibration_error(torch.ones(1, 15, 3), "maximum"), lambda: CalibrationError("adaptive")):
        with pytest.raises(InputError, match="reduction"):
            call()
    with pytest.raises(InputError, match="bins have shape"):
        F.calibration_error(torch.ones(15, 3))
