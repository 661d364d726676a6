"""The figures of a data set as a whole against NumPy loops over its cases, classes and pixels; their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from aleatoric.evaluation.curves import data_set_figures
from aleatoric.metrics import (
    AreaCoverage,
    MultiRaterMetrics,
    PresenceCalibration,
    ReliabilityBins,
    functional,
    summarize_samples,
)
from aleatoric.statistics import bootstrap_cases, bootstrap_sums

CLASSES = ["background", "core", "oedema"]
CASES, SAMPLES, RATERS, SIZE = 24, 5, 3, (6, 7)


@pytest.fixture(scope="module")
def scored():
    """Logits, labels and raters of 24 cases of 8 patients, in three batches, some cases without a class or a rater."""
    random = np.random.default_rng(0)
    lift = torch.from_numpy(random.normal(-2, 2, (CASES, SAMPLES, 3, 1, 1)))
    logits = (torch.from_numpy(random.normal(0, 1.5, (CASES, SAMPLES, 3, *SIZE))) + lift).float()
    labels = torch.from_numpy(random.integers(0, 3, (CASES, RATERS, *SIZE)))
    labels *= torch.from_numpy(random.random((CASES, RATERS, 1, 1)) < 0.6)
    labels[::4] *= labels[::4] != 2
    valid = torch.ones(CASES, RATERS, dtype=torch.bool)
    valid[3, 1] = valid[5] = False
    metrics = MultiRaterMetrics(class_names=CLASSES)
    for some in torch.arange(CASES).split(9):
        summary = summarize_samples([logits[some]], labels[some], valid[some])
        metrics(summary.masks, labels[some], rater_valid=valid[some], summary=summary)
    return metrics, summarize_samples([logits]), labels, valid


@pytest.fixture(scope="module")
def patients():
    return [f"patient {number % 8}" for number in range(CASES)]


def of_raters(labels, valid):
    return [[y.numpy() for y, there in zip(case, known) if there] for case, known in zip(labels, valid)]


def binned(forecasts, number):
    """Lists of (forecast, frequency) by bin, one forecast after the other."""
    bins = [[] for _ in range(number)]
    for forecast, frequency in forecasts:
        bins[min(math.floor(forecast * number + 1e-6), number - 1)].append((forecast, frequency))
    return bins


def gaps(bins):
    """Of the bins that hold something: how many, and the distance of their means."""
    return [(len(one), abs(np.mean([p for p, _ in one]) - np.mean([f for _, f in one]))) for one in bins if one]


def test_calibration_of_all_pixels_is_a_diagram_per_class_and_then_the_mean(scored, patients):
    metrics, summary, labels, valid = scored
    expected, average = [], []
    for c in (1, 2):
        forecasts = []
        for mean, raters in zip(summary.mean.double().numpy(), of_raters(labels, valid)):
            if raters:
                shares = np.mean([y == c for y in raters], axis=0)
                forecasts += list(zip(mean[c].ravel(), shares.ravel()))
        found = gaps(binned(forecasts, 15))
        expected.append(sum(number * gap for number, gap in found) / len(forecasts))
        average.append(np.mean([gap for _, gap in found]))
    whole = data_set_figures(metrics, CLASSES, patients, resamples=0)
    assert whole.metrics["ece_pooled"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert whole.metrics["ace_pooled"] == pytest.approx(np.mean(average), rel=1e-4)
    twin = ReliabilityBins()
    twin(summary.mean, labels, rater_valid=valid)
    assert twin.calibration_error().item() == pytest.approx(whole.metrics["ece_pooled"])
    assert twin.calibration_error("average").item() == pytest.approx(whole.metrics["ace_pooled"])


def test_every_case_and_class_is_one_forecast_of_the_presence(scored, patients):
    metrics, summary, labels, valid = scored
    forecasts = [
        (np.mean([(s == c).any() for s in masks]), np.mean([(y == c).any() for y in raters]))
        for masks, raters in zip(summary.masks.numpy(), of_raters(labels, valid))
        for c in (1, 2)
        if raters
    ]
    bins = binned(forecasts, 10)
    whole = data_set_figures(metrics, CLASSES, patients, resamples=0)
    expected = sum(number * gap for number, gap in gaps(bins)) / len(forecasts)
    assert whole.metrics["presence_ece"] == pytest.approx(expected) and expected > 0.1
    curve = whole.curves["presence"]
    assert curve["forecasts"].tolist() == [len(one) for one in bins]
    for name, of in (("samples", 0), ("raters", 1)):
        np.testing.assert_allclose(curve[name], [np.mean([f[of] for f in one]) if one else math.nan for one in bins])
    twin = PresenceCalibration(num_classes=3)
    twin(summary.masks, labels, rater_valid=valid)
    assert twin.calibration_error().item() == pytest.approx(whole.metrics["presence_ece"])


def presence_maps(shown):
    """(B, N, 2, 2) of classes (B, N) that each map shows, one pixel each."""
    maps = torch.zeros(*np.shape(shown), 2, 2, dtype=torch.long)
    maps[..., 0, 0] = torch.as_tensor(shown)
    return maps


def test_a_class_shown_too_often_does_not_make_up_for_one_shown_too_seldom():
    samples, labels = presence_maps([[1, 1]] * 6), presence_maps([[2, 2]] * 6)
    metrics = MultiRaterMetrics(num_classes=3)
    metrics(samples, labels)
    whole = data_set_figures(metrics, CLASSES, range(6), resamples=0)
    assert whole.metrics["presence_ece"] == 1
    assert [rates.tolist() for rates in metrics.presence()] == [[[1.0, 0.0]] * 6, [[0.0, 1.0]] * 6]


def test_without_the_number_of_classes_any_of_them_counts_whatever_a_batch_shows():
    metrics = MultiRaterMetrics()
    metrics(presence_maps([[1, 2], [0, 2]]), presence_maps([[2, 3, 0, 0], [1, 1, 1, 1]]))
    metrics(presence_maps([[1, 0]]), presence_maps([[0, 0, 0, 1]]))
    drawn, read = metrics.presence()
    assert drawn.tolist() == [[1.0], [0.5], [0.5]] and read.tolist() == [[0.5], [1.0], [0.25]]


def test_area_calibration_is_the_mean_distance_of_the_curve_from_its_diagonal(scored, patients):
    metrics, summary, labels, valid = scored
    levels = np.arange(1, 10) / 10
    curves = []
    for masks, raters in zip(summary.masks.numpy(), of_raters(labels, valid)):
        of_classes = []
        for c in (1, 2):
            drawn, read = [(s == c).sum() for s in masks], [(y == c).sum() for y in raters]
            if not raters or not any(drawn + read):
                continue
            inside = []
            for area in read:
                start = sum(a < area for a in drawn) / (SAMPLES + 1)
                stop = start + (sum(a == area for a in drawn) + 1) / (SAMPLES + 1)
                overlap = np.minimum(stop, (1 + levels) / 2) - np.maximum(start, (1 - levels) / 2)
                inside.append(np.maximum(overlap, 0) / (stop - start))
            of_classes.append(np.mean(inside, axis=0))
        if of_classes:
            curves.append(np.mean(of_classes, axis=0))
    whole = data_set_figures(metrics, CLASSES, patients, resamples=0)
    expected = np.abs(np.mean(curves, axis=0) - levels).mean()
    assert whole.metrics["area_calibration_error"] == pytest.approx(expected, rel=1e-5) and len(curves) < CASES
    twin = AreaCoverage(num_classes=3)
    twin(summary.masks, labels, rater_valid=valid)
    assert twin.calibration_error().item() == pytest.approx(whole.metrics["area_calibration_error"])


def test_intervals_of_calibration_errors_are_reflected(scored, patients):
    """Noise makes an error larger, and that of a resample larger still: its quantiles lie above the truth."""
    metrics, *_ = scored
    whole = data_set_figures(metrics, CLASSES, patients, resamples=300)
    bins = metrics.reliability()
    for name, how in (("ece_pooled", "expected"), ("ace_pooled", "average")):
        low, high = bootstrap_sums(
            bins.numpy(),
            patients,
            lambda sums, how=how: functional.calibration_error(torch.from_numpy(sums), how).numpy(),
            300,
            distance=True,
            known=np.arange(CASES) != 5,  # which has no rater
        )
        assert whole.intervals[name] == pytest.approx((float(low), float(high)))
    for name in ("ece_pooled", "ace_pooled", "presence_ece", "area_calibration_error"):
        low, high = whole.intervals[name]
        assert 0 <= low < high < 2 * whole.metrics[name], name  # twice the estimate less a quantile


def test_patients_without_an_area_do_not_count_for_its_interval():
    samples, labels = presence_maps([[1, 1]] * 3 + [[0, 0]] * 3), presence_maps([[1, 0]] * 3 + [[0, 0]] * 3)
    metrics = MultiRaterMetrics(num_classes=2)
    metrics(samples, labels)
    whole = data_set_figures(metrics, CLASSES[:2], list("abcdef"), resamples=100)
    assert np.isfinite(whole.intervals["presence_ece"]).all()  # six patients
    assert np.isnan(whole.intervals["area_calibration_error"]).all()  # three, where nobody else shows an area


def test_intervals_of_the_risk_are_those_of_its_area(scored, patients):
    """A tenth of the resamples, the same patients."""
    metrics = scored[0]
    found = data_set_figures(metrics, CLASSES, patients, 2000, 0.9, 3)
    cases = metrics.cases()
    doubt, risk = cases["diversity"], 1 - cases["dice_mean_prediction"]
    for name, excess in (("aurc", False), ("aurc_excess", True)):
        twin = bootstrap_cases(
            lambda counts, how=excess: [
                float(functional.aurc(doubt.repeat_interleave(n), risk.repeat_interleave(n), excess=how))
                for n in torch.from_numpy(counts).long()
            ],
            patients,
            200,
            0.9,
            3,
        )
        np.testing.assert_allclose(found.intervals[name], twin, rtol=1e-5)
    assert found.intervals["aurc"] != found.intervals["aurc_excess"]


def test_a_single_sample_says_nothing_of_the_areas_calibration(patients):
    random = np.random.default_rng(1)
    masks = torch.from_numpy(random.integers(0, 2, (CASES, 4, *SIZE)))
    metrics = MultiRaterMetrics()
    metrics(masks[:, :1], masks[:, 1:], mean_prediction=masks[:, 0])
    found = data_set_figures(metrics, ["background", "lesion"], patients, 100)
    assert math.isnan(found.metrics["area_calibration_error"])
    assert all(map(math.isnan, found.intervals["area_calibration_error"]))
    assert not math.isnan(found.metrics["presence_ece"])
