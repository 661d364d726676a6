"""The maps' correlations against NumPy and PHiSeg's definition, and all figures of one summary together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from aleatoric.errors import InputError
from aleatoric.metrics import CrossEntropyNCC, PixelEntropy, VarianceNCC, mark_missing, summarize_samples
from aleatoric.metrics import functional as F
from aleatoric.metrics.definitions import DEFINITIONS

LAYOUTS = [(1, (9, 7)), (3, (9, 7)), (1, (5, 6, 4)), (4, (5, 6, 4)), (2, (8, 8))]
FIGURES = {
    "ece",
    "ace",
    "brier",
    "qubiq_score",
    "variance_ncc",
    "cross_entropy_ncc",
    "entropy",
    "ewd_cross_entropy",
}


def scene(channels, size, images=3, number=6, raters=4, seed=0):
    """Logits (B, N, K, *S) and labels (B, R, *S) of one law."""
    chance = torch.Generator().manual_seed(seed)
    mean = 3 * torch.randn(images, 1, channels, *size, generator=chance)
    logits = mean + torch.randn(images, number, channels, *size, generator=chance)
    truth = mean + 2 * torch.randn(images, raters, channels, *size, generator=chance)
    return logits, (truth[:, :, 0] > 0).long() if channels == 1 else truth.argmax(2)


def one_hot(maps, classes):
    return np.stack([np.asarray(maps) == c for c in range(classes)], axis=1).astype(float)


@pytest.mark.parametrize(("channels", "size"), LAYOUTS)
def test_variance_ncc_is_numpys_correlation(channels, size):
    logits, labels = scene(channels, size)
    summary, classes = summarize_samples([logits]), max(channels, 2)
    found = F.variance_ncc(summary.masks, labels)
    for image in range(3):
        maps = [one_hot(m[image], classes)[:, 1:].var(0).sum(0).ravel() for m in (summary.masks, labels)]
        assert found[image].item() == pytest.approx(np.corrcoef(*maps)[0, 1], abs=1e-5)


def phisegs_ncc(samples, labels):
    """S_NCC of Baumgartner et al. (2019), sec. 3, as written: samples (N, C, P), labels (R, C, P) one-hot."""

    def cross_entropy(a, b):
        return -(a * np.log(np.maximum(b, np.exp(-100)))).sum(0)

    mean = samples.mean(0)
    unsure = np.mean([cross_entropy(mean, s) for s in samples], axis=0)
    wrong = [np.mean([cross_entropy(y, s) for s in samples], axis=0) for y in labels]
    return np.mean([np.corrcoef(unsure, w)[0, 1] for w in wrong])


@pytest.mark.parametrize(("channels", "size"), LAYOUTS)
def test_cross_entropy_ncc_is_phisegs(channels, size):
    logits, labels = scene(channels, size)
    summary, classes = summarize_samples([logits]), max(channels, 2)
    samples = logits.double()
    samples = torch.cat([torch.sigmoid(-samples), samples.sigmoid()], 2) if channels == 1 else samples.softmax(2)
    found = F.cross_entropy_ncc(summary.mean, summary.mean_log, labels)
    for image in range(3):
        expected = phisegs_ncc(samples[image].flatten(2).numpy(), one_hot(labels[image].flatten(1), classes))
        assert found[image].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_entropy_is_scipys(channels):
    mean = summarize_samples([scene(channels, (9, 7))[0]]).mean
    full = torch.cat([1 - mean, mean], 1) if channels == 1 else mean
    expected = scipy_entropy(full.double().numpy(), axis=1).mean((1, 2))
    np.testing.assert_allclose(F.pixel_entropy(mean), expected, rtol=1e-5)


def test_correlations_of_the_raters_with_themselves_are_1():
    _, labels = scene(1, (9, 7))
    torch.testing.assert_close(F.variance_ncc(labels, labels), torch.ones(3))
    # the variance says nothing of the mean: the complement has the same
    torch.testing.assert_close(F.variance_ncc(1 - labels, labels), torch.ones(3))


def test_doubt_in_the_wrong_place_is_negative():
    samples, labels = torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4)
    samples[:, 0, :, :2], labels[:, 0, :, 2:] = 1, 1
    assert F.variance_ncc(samples, labels).item() == pytest.approx(-1)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_variance_ncc_of_constant_maps(share):
    _, doubt = scene(1, (9, 7), images=1)
    agreed = torch.full_like(doubt, int(share))
    assert F.variance_ncc(agreed, doubt).item() == 0  # the samples find nothing
    assert F.variance_ncc(doubt, agreed).isnan().all()  # there is nothing to find
    assert F.variance_ncc(agreed, agreed).isnan().all()
    half = torch.cat([torch.zeros_like(doubt), torch.ones_like(doubt)], dim=1)
    assert F.variance_ncc(doubt, half).isnan().all()  # as much doubt everywhere


def test_cross_entropy_ncc_of_constant_maps():
    logits, labels = scene(1, (9, 7), images=1)
    flat = summarize_samples([torch.full_like(logits, 0.7)])
    assert F.cross_entropy_ncc(flat.mean, flat.mean_log, labels).item() == 0
    everywhere = torch.ones_like(labels)
    assert F.cross_entropy_ncc(flat.mean, flat.mean_log, everywhere).isnan().all()
    # a rater whose own map is constant is left out, the others stay
    mixed = torch.cat([labels[:, :2], everywhere[:, :1]], dim=1)
    assert F.cross_entropy_ncc(flat.mean, flat.mean_log, mixed).item() == 0


@pytest.mark.parametrize(("channels", "size"), LAYOUTS)
def test_all_figures_together_are_those_of_the_functions(channels, size):
    logits, labels = scene(channels, size)
    valid = torch.tensor([[True, True, False, True], [True] * 4, [False] * 4])
    labels[0, 2] = 255
    summary = summarize_samples(logits.split(4, dim=1), labels, valid)
    figures = F.pixel_figures(summary, labels, valid, num_classes=max(channels, 2))
    probabilities = logits.sigmoid() if channels == 1 else logits.softmax(2)
    bins = F.reliability_bins(summary.mean, labels, valid)
    expected = {
        "ece": F.calibration_error(bins),
        "ace": F.calibration_error(bins, "average"),
        "brier": F.brier_score(summary.mean, labels, valid),
        "qubiq_score": F.qubiq_score(summary.mean, labels, valid),
        "variance_ncc": F.variance_ncc(summary.masks, labels, valid, num_classes=max(channels, 2)),
        "cross_entropy_ncc": F.cross_entropy_ncc(summary.mean, summary.mean_log, labels, valid),
        "entropy": F.pixel_entropy(summary.mean),
        "ewd_cross_entropy": F.empirical_wasserstein_distance(probabilities, labels, valid, "cross_entropy"),
    }
    assert set(figures) == set(expected) == FIGURES <= set(DEFINITIONS)
    for name, values in figures.items():
        assert values.shape == (3,) and values.dtype == torch.float32, name
        torch.testing.assert_close(values, expected[name], rtol=1e-5, atol=1e-5, equal_nan=True)
        assert values.isnan().tolist() == [False, False, name != "entropy"], name


@pytest.mark.parametrize("channels", [1, 3])
def test_order_of_raters_samples_and_images_does_not_matter(channels):
    logits, labels = scene(channels, (9, 7))
    first = F.pixel_figures(summarize_samples([logits], labels), labels)
    turned = labels[:, [2, 0, 3, 1]]
    second = F.pixel_figures(summarize_samples([logits.flip(1)], turned), turned)
    alone = [
        F.pixel_figures(summarize_samples([x], y), y) for x, y in zip(logits.split(1), labels.split(1), strict=True)
    ]
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.cat([each[name] for each in alone]), values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_missing_rater_is_one_less(channels):
    logits, labels = scene(channels, (9, 7))
    expected = F.pixel_figures(summarize_samples([logits], labels[:, :3]), labels[:, :3])
    labels[:, 3] = 255
    valid = torch.tensor([[True, True, True, False]]).expand(3, 4)
    found = F.pixel_figures(summarize_samples([logits], labels, valid), labels, valid)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-5)
    # also where the summary did not know of it
    labels[:, 3] = 0
    found = F.pixel_figures(summarize_samples([logits], labels), labels, valid)
    torch.testing.assert_close(found["ewd_cross_entropy"], expected["ewd_cross_entropy"], rtol=1e-5, atol=1e-5)


def test_without_labels_in_the_summary_there_is_no_cross_entropy():
    logits, labels = scene(1, (9, 7))
    assert set(F.pixel_figures(summarize_samples([logits]), labels)) == FIGURES - {"ewd_cross_entropy"}


def test_empty_masks_are_answers():
    logits = torch.full((1, 4, 1, 6, 6), -8.0)
    nobody = torch.zeros(1, 3, 6, 6, dtype=torch.uint8)
    figures = F.pixel_figures(summarize_samples([logits], nobody), nobody)
    small = torch.sigmoid(torch.tensor(-8.0)).item()
    assert figures["qubiq_score"].item() == 1
    assert figures["ece"].item() == figures["ace"].item() == pytest.approx(small)
    assert figures["brier"].item() == pytest.approx(small**2)
    assert figures["ewd_cross_entropy"].item() == pytest.approx(-math.log1p(-small), rel=1e-3)
    assert figures["variance_ncc"].isnan().all() and figures["cross_entropy_ncc"].isnan().all()


def test_an_empty_batch_has_empty_figures():
    labels = torch.zeros(0, 2, 4, 4)
    figures = F.pixel_figures(summarize_samples([torch.zeros(0, 3, 1, 4, 4)], labels), labels)
    assert {tuple(values.shape) for values in figures.values()} == {(0,)}


@pytest.mark.parametrize("channels", [1, 3])
def test_classes_take_batches_lists_and_marked_raters(channels):
    logits, labels = scene(channels, (9, 7))
    valid = torch.tensor([[True, True, True, False], [True] * 4, [False] * 4])
    marked, summary = mark_missing(labels, valid), summarize_samples([logits])
    calls = {
        "variance_ncc": (VarianceNCC(max(channels, 2)), summary.masks, {}),
        "cross_entropy_ncc": (CrossEntropyNCC(), summary.mean, {"mean_log": summary.mean_log}),
        "entropy": (PixelEntropy(), summary.mean, {}),
    }
    expected = F.pixel_figures(summary, labels, valid)
    for name, (metric, values, options) in calls.items():
        metric(values, labels, rater_valid=valid, **options)
        metric(list(values), list(marked), **{key: list(value) for key, value in options.items()})
        torch.testing.assert_close(metric.per_case()[:, 0], expected[name].repeat(2), equal_nan=True)
        torch.testing.assert_close(metric.aggregate(), expected[name].nanmean())


def test_what_has_no_correlation_is_refused():
    logits, labels = scene(1, (9, 7))
    summary = summarize_samples([logits])
    for call, words in [
        (lambda: F.variance_ncc(summary.masks, labels[:, :, 1:]), "labels have shape"),
        (lambda: F.variance_ncc(summary.masks[:, :0], labels), "samples have shape"),
        (lambda: F.variance_ncc(summary.masks, labels * 3, num_classes=2), "the class 3"),
        (lambda: F.cross_entropy_ncc(summary.mean, summary.mean, labels), "mean_log"),
        (lambda: F.cross_entropy_ncc(summary.mean, summary.mean_log, labels * 2), "the class 2"),
        (lambda: F.cross_entropy_ncc(summary.mean * math.nan, summary.mean_log, labels), "mean holds values outside"),
        (
            lambda: F.cross_entropy_ncc(summary.mean, summary.mean_log * math.nan, labels),
            "mean_log holds values above 0",
        ),
        (lambda: F.cross_entropy_ncc(summary.mean, -summary.mean_log, labels), "mean_log holds values above 0"),
        (lambda: F.pixel_entropy(summary.mean * math.nan), "mean holds values outside"),
        (lambda: F.pixel_entropy(summary.mean + 3), "mean holds values outside"),
        (lambda: F.pixel_entropy(summary.masks), "pass probabilities"),
        (lambda: F.pixel_entropy(summary.mean[0, 0]), "pass probabilities"),
        (lambda: F.pixel_figures(summary, labels, num_classes=3), "num_classes"),
        (lambda: CrossEntropyNCC()(summary.mean, labels), "mean_log"),
    ]:
        with pytest.raises(InputError, match=words):
            call()
