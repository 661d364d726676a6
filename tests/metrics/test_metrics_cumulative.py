"""The metric classes: by hand, and inside MONAI's evaluator with its handlers."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor, decollate_batch
from monai.engines import SupervisedEvaluator
from monai.handlers import MetricsSaver, StatsHandler, from_engine
from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.inferers import SimpleInferer
from monai.transforms import Compose, Lambdad

from aleatoric.errors import InputError
from aleatoric.metrics import (
    MISSING,
    AreaCoverage,
    AreaCRPS,
    AreaStatistics,
    BrierScore,
    ClassDice,
    DiceBetweenRaters,
    DiceQuantile,
    EffectiveRank,
    EmpiricalWassersteinDistance,
    GeneralizedEnergyDistance,
    GeneralizedEnergyTerms,
    GiniIndex,
    HungarianMatchedIoU,
    MarkMissingRatersd,
    MatchedDice,
    MaxDice,
    MultiRaterDice,
    MultiRaterMetricHandler,
    MultiRaterMetrics,
    PresenceBrier,
    PresenceCalibration,
    SampleDiversity,
    ShareBetterThanMean,
    functional,
    mark_missing,
)


def masks(seed, *shape):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4).to(torch.uint8)


SAMPLES, LABELS = masks(1, 5, 6, 8, 8), masks(2, 5, 4, 8, 8)
LABELS[3, 0] = LABELS[4] = 0
VALID = torch.ones(5, 4, dtype=torch.bool)
VALID[1, 2] = VALID[2, :3] = False

METRICS = {
    "ged": (GeneralizedEnergyDistance(), lambda s, y, v: functional.generalized_energy_distance(s, y, v)),
    "ged_unbiased": (
        GeneralizedEnergyDistance(unbiased=True),
        lambda s, y, v: functional.generalized_energy_distance(s, y, v, unbiased=True),
    ),
    "ewd": (EmpiricalWassersteinDistance(), lambda s, y, v: functional.empirical_wasserstein_distance(s, y, v)),
    "hausdorff": (
        EmpiricalWassersteinDistance("hausdorff"),
        lambda s, y, v: functional.empirical_wasserstein_distance(s, y, v, "hausdorff"),
    ),
    "cross_entropy": (
        EmpiricalWassersteinDistance("cross_entropy"),
        lambda s, y, v: functional.empirical_wasserstein_distance(s, y, v, "cross_entropy"),
    ),
    "hausdorff_in_mm": (
        EmpiricalWassersteinDistance("hausdorff", spacing=(2.0, 0.5)),
        lambda s, y, v: functional.empirical_wasserstein_distance(s, y, v, "hausdorff", spacing=(2.0, 0.5)),
    ),
    "hm_iou": (HungarianMatchedIoU(), lambda s, y, v: functional.hm_iou(s, y, v)),
    "dice_matched": (MatchedDice(), lambda s, y, v: functional.dice_matched(s, y, v)),
    "dice_matched_one_to_one": (
        MatchedDice(surplus="ignore"),
        lambda s, y, v: functional.dice_matched(s, y, v, surplus="ignore"),
    ),
    "dice_max": (MaxDice(), lambda s, y, v: functional.dice_max(s, y, v)),
    "area_crps": (AreaCRPS(pixel_size=0.7), lambda s, y, v: functional.area_crps(s, y, v, pixel_size=0.7)),
    "area_crps_fair": (AreaCRPS(unbiased=True), lambda s, y, v: functional.area_crps(s, y, v, True)),
    "presence_brier": (PresenceBrier(), lambda s, y, v: functional.presence_brier(s, y, v)),
    "presence_brier_fair": (PresenceBrier(unbiased=True), lambda s, y, v: functional.presence_brier(s, y, v, True)),
    "diversity": (SampleDiversity(), lambda s, y, v: functional.sample_diversity(s)),
    "dice_quantile": (DiceQuantile(), lambda s, y, v: functional.dice_quantile(s, y, rater_valid=v)),
    "dice_median": (DiceQuantile(0.5), lambda s, y, v: functional.dice_quantile(s, y, 0.5, rater_valid=v)),
    "dice_between_raters": (DiceBetweenRaters(), lambda s, y, v: functional.dice_between_raters(y, v)),
    "dice": (MultiRaterDice(), lambda s, y, v: functional.dice(s, y, rater_valid=v)),
    "dice_nonempty": (MultiRaterDice(skip_empty=True), lambda s, y, v: functional.dice(s, y, True, rater_valid=v)),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("decollated", [False, True])
def test_accumulated_over_batches_equals_all_at_once(name, decollated):
    metric, function = METRICS[name]
    metric.reset()
    marked = mark_missing(LABELS, VALID)
    for batch in (slice(0, 2), slice(2, 5)):
        pair = SAMPLES[batch], marked[batch]
        metric(*(map(list, pair) if decollated else pair))
    expected = function(SAMPLES, LABELS, VALID)
    torch.testing.assert_close(metric.per_case()[:, 0], expected, equal_nan=True)
    torch.testing.assert_close(metric.aggregate(), expected.nanmean())
    metric.reset()
    with pytest.raises(InputError, match="has seen no case"):
        metric.aggregate()


@pytest.mark.parametrize("decollated", [False, True])
def test_curves_over_batches(decollated):
    coverage, areas, presence = AreaCoverage(levels=(0.3, 0.8)), AreaStatistics(), PresenceCalibration(num_bins=4)
    valid = VALID.clone()
    valid[4] = False  # a case without raters is left out of the means
    marked = mark_missing(LABELS, valid)
    for batch in (slice(0, 2), slice(2, 5)):
        pair = SAMPLES[batch], marked[batch]
        for metric in (coverage, areas, presence):
            metric(*(map(list, pair) if decollated else pair))
    expected = functional.area_coverage(SAMPLES, LABELS, valid, (0.3, 0.8))
    torch.testing.assert_close(coverage.per_case(), expected, equal_nan=True)
    torch.testing.assert_close(coverage.aggregate(), expected.nanmean(0))
    statistics = functional.area_statistics(SAMPLES, LABELS, valid)
    torch.testing.assert_close(areas.per_case(), torch.stack(statistics, 1), equal_nan=True)
    for name, value in statistics._asdict().items():
        full = {"low": "samples_low", "high": "samples_high"}.get(name, name)
        assert areas.aggregate()[f"area_{full}"] == pytest.approx(value.nanmean().item())
    assert areas.aggregate().keys() <= functional.multi_rater_figures(SAMPLES, LABELS).keys()
    rates = functional.presence_rates(SAMPLES, LABELS, valid)
    bins = functional.presence_bins(rates[0].flatten(), rates[1].flatten(), 4)
    torch.testing.assert_close(presence.aggregate(), bins)
    assert bins[:, 0].sum() == 4


@pytest.mark.parametrize("decollated", [False, True])
def test_every_image_has_its_own_size_of_pixels(decollated):
    spacing = torch.tensor([[1.0, 1.0], [0.5, 0.7], [2.0, 2.0], [1.0, 3.0], [0.1, 0.1]])
    sizes = spacing.prod(1)
    crps, areas, hausdorff = AreaCRPS(), AreaStatistics(), EmpiricalWassersteinDistance("hausdorff")
    form = list if decollated else torch.as_tensor
    for batch in (slice(0, 2), slice(2, 5)):
        pair = form(SAMPLES[batch]), form(LABELS[batch])
        crps(*pair, pixel_size=form(sizes[batch]))
        areas(*pair, pixel_size=form(sizes[batch]))
        hausdorff(*pair, spacing=form(spacing[batch]))
    torch.testing.assert_close(crps.per_case()[:, 0], functional.area_crps(SAMPLES, LABELS) * sizes)
    torch.testing.assert_close(areas.per_case()[:, 3], functional.area_statistics(SAMPLES, LABELS).raters * sizes)
    expected = [
        functional.empirical_wasserstein_distance(s[None], y[None], kernel="hausdorff", spacing=step.tolist())
        for s, y, step in zip(SAMPLES, LABELS, spacing, strict=True)
    ]
    torch.testing.assert_close(hausdorff.per_case()[:, 0], torch.cat(expected))


@pytest.mark.parametrize(
    ("metric", "function"),
    [(EffectiveRank(), functional.effective_rank), (GiniIndex(), functional.gini_index)],
    ids=["effective_rank", "gini_index"],
)
@pytest.mark.parametrize("decollated", [False, True])
def test_spectra_over_batches(metric, function, decollated):
    scales = torch.rand(7, 6, generator=torch.Generator().manual_seed(4))
    metric.reset()
    for batch in (scales[:3], scales[3:]):
        metric(list(batch) if decollated else batch)
    torch.testing.assert_close(metric.per_case()[:, 0], function(scales))
    torch.testing.assert_close(metric.aggregate(), function(scales).mean())


def test_all_figures_in_one_metric():
    metric = MultiRaterMetrics(kernels=("iou", "dice"))
    metric(SAMPLES, LABELS, rater_valid=VALID)
    expected = functional.multi_rater_figures(SAMPLES, LABELS, VALID, kernels=("iou", "dice"))
    assert metric.names == tuple(expected)
    for name, value in metric.cases().items():
        torch.testing.assert_close(value, expected[name], equal_nan=True)
        assert metric.aggregate()[name] == pytest.approx(expected[name].nanmean().item())
    assert metric.aggregate()["dice_nonempty"] > 0  # case 4 has empty raters only and is left out, not counted as 0


@pytest.mark.parametrize("decollated", [False, True])
def test_figures_of_the_mean_prediction_over_batches(decollated):
    classes, names = 4, ["nothing", "necrotic core", "oedema", "enhancing"]
    samples, labels = SAMPLES * 2 + masks(3, *SAMPLES.shape), LABELS * 3
    mean = samples[:, 2]
    marked = mark_missing(labels, VALID)
    metric = MultiRaterMetrics(class_names=names)
    plain_names = metric.names
    for batch in (slice(0, 2), slice(2, 5)):
        given = samples[batch], marked[batch], mean[batch]
        s, y, m = map(list, given) if decollated else given
        metric(s, y, mean_prediction=m)
    options = {"num_classes": classes, "class_names": names}
    expected = functional.multi_rater_figures(samples, labels, VALID, mean_prediction=mean, **options)
    assert metric.names == tuple(expected) and metric.cases().keys() == expected.keys()
    for name, value in metric.cases().items():
        torch.testing.assert_close(value, expected[name], equal_nan=True)
    assert "dice_class_necrotic_core_mean_prediction" in expected and "dice_class_nothing" not in expected
    with pytest.raises(InputError, match="neither mean_prediction nor summary, unlike those before it"):
        metric(samples, marked)
    metric.reset()
    assert metric.names == plain_names
    metric(samples, marked)
    assert metric.names == plain_names == tuple(functional.multi_rater_figures(samples, labels, **options))
    with pytest.raises(InputError, match="came with mean_prediction, unlike those before it"):
        metric(samples, marked, mean_prediction=mean)
    with pytest.raises(InputError, match="class_names are"):
        MultiRaterMetrics(num_classes=3, class_names=names)


@pytest.mark.parametrize("decollated", [False, True])
def test_figures_of_several_numbers_over_batches(decollated):
    samples, labels, mean = SAMPLES * 2 + masks(3, *SAMPLES.shape), LABELS * 3, SAMPLES[:, 2] * 2
    classes, shown = ClassDice(4), ClassDice(4, both_empty=float("nan"))
    terms, unbiased, better = GeneralizedEnergyTerms(), GeneralizedEnergyTerms(True, 4), ShareBetterThanMean(4)
    for batch in (slice(0, 2), slice(2, 5)):
        s, y, m = (
            list(part[batch]) if decollated else part[batch] for part in (samples, mark_missing(labels, VALID), mean)
        )
        for metric in (classes, shown, terms, unbiased):
            metric(s, y)
        better(s, y, mean_prediction=m)
    options = {"num_classes": 4, "class_names": ["0", "1", "2", "3"]}
    figures = functional.multi_rater_figures(samples, labels, VALID, mean_prediction=mean, **options)
    for metric, start in ((classes, "dice_class"), (shown, "dice_shown")):
        names = [f"{start}_{c}" for c in (1, 2, 3)] + ["dice_whole" if metric is classes else "dice_shown_whole"]
        expected = torch.stack([figures[name] for name in names], 1)
        torch.testing.assert_close(metric.per_case(), expected, equal_nan=True)
        torch.testing.assert_close(metric.aggregate(), expected.nanmean(0))
    known = unbiased.aggregate()
    assert known["cross"] == pytest.approx(figures["cross"].mean().item())
    assert known["diversity"] == pytest.approx(figures["diversity_unbiased"].mean().item())
    assert known["rater_diversity"] == pytest.approx(figures["rater_diversity_unbiased"].nan_to_num().mean().item())
    assert VALID.sum(1).min() == 1  # whose term is 0
    expected = functional.generalized_energy_terms(samples, labels, VALID)
    assert list(terms.aggregate().values()) == pytest.approx([term.mean().item() for term in expected])
    torch.testing.assert_close(better.per_case()[:, 0], figures["share_better_than_mean"])
    with pytest.raises(InputError, match="no mean_prediction"):
        better(samples, labels)


@pytest.mark.parametrize("decollated", [False, True])
def test_all_cases_of_a_call_may_share_a_size_of_pixels(decollated):
    form = list if decollated else torch.as_tensor
    for steps in ((2.0, 0.5), [2.0, 0.5], np.array([2.0, 0.5]), torch.tensor([2.0, 0.5])):
        for number in (2, 5):  # as many cases as axes, too
            metric = EmpiricalWassersteinDistance("hausdorff")
            metric(form(SAMPLES[:number]), form(LABELS[:number]), spacing=steps)
            expected = functional.empirical_wasserstein_distance(
                SAMPLES[:number], LABELS[:number], kernel="hausdorff", spacing=(2.0, 0.5)
            )
            torch.testing.assert_close(metric.per_case()[:, 0], expected)
    for size in (2.0, np.float64(2), torch.tensor(2.0)):
        areas = AreaStatistics()
        areas(form(SAMPLES), form(LABELS), pixel_size=size)
        expected = functional.area_statistics(SAMPLES, LABELS, pixel_size=2.0)
        torch.testing.assert_close(areas.per_case(), torch.stack(expected, 1))


@pytest.mark.parametrize("steps", [(2.0, 0.5), np.array([2.0, 0.5]), torch.tensor([2.0, 0.5])])
def test_spacing_of_any_kind(steps):
    metric = MultiRaterMetrics(spacing=steps)
    metric(SAMPLES, LABELS)
    torch.testing.assert_close(
        metric.cases()["area_raters"], functional.multi_rater_figures(SAMPLES, LABELS)["area_raters"]
    )
    for wrong in (torch.ones(5, 2), np.zeros(2), ()):
        with pytest.raises(InputError, match="spacing is"):
            MultiRaterMetrics(spacing=wrong)(SAMPLES, LABELS)


@pytest.mark.parametrize(
    "metric", [GeneralizedEnergyDistance(), MultiRaterMetrics(), SampleDiversity(), EffectiveRank(), BrierScore()]
)
def test_a_batch_of_no_case_is_refused(metric):
    for nothing in ([], SAMPLES[:0]):
        with pytest.raises(InputError, match="a batch of no case; leave"):
            metric(nothing, nothing)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int32, torch.bfloat16])
def test_types_of_marked_labels(dtype):
    metric, expected = MultiRaterMetrics(kernels=("hausdorff",)), MultiRaterMetrics(kernels=("hausdorff",))
    marked = mark_missing(LABELS.to(dtype), VALID) if dtype != torch.bfloat16 else mark_missing(LABELS, VALID).to(dtype)
    metric(SAMPLES.to(dtype), marked)
    expected(SAMPLES, LABELS, rater_valid=VALID)
    torch.testing.assert_close(metric.per_case(), expected.per_case(), equal_nan=True)


def test_every_case_of_a_list_has_its_own_raters():
    metric, batched = MultiRaterMetrics(), MultiRaterMetrics()
    metric(list(SAMPLES), list(LABELS), rater_valid=list(VALID))
    batched(SAMPLES, LABELS, rater_valid=VALID)
    torch.testing.assert_close(metric.per_case(), batched.per_case(), equal_nan=True)


def test_diversity_needs_no_labels():
    metric = SampleDiversity()
    metric(SAMPLES)
    torch.testing.assert_close(metric.per_case()[:, 0], functional.sample_diversity(SAMPLES))


def test_areas_of_volumes_in_cubic_millimetres():
    samples, labels = (maps[..., None].expand(-1, -1, -1, -1, 2).contiguous() for maps in (SAMPLES, LABELS))
    plain, metric = MultiRaterMetrics(), MultiRaterMetrics(spacing=(0.5, 0.5, 3.0))
    assert metric.names == plain.names
    metric(samples, labels)
    plain(samples, labels)
    torch.testing.assert_close(metric.cases()["area_raters"], 0.75 * plain.cases()["area_raters"])


def test_logs_get_the_figures_that_are_asked_for():
    whole, some = MultiRaterMetrics(), MultiRaterMetrics(shown=["ged", "dice"], prefix="val_")
    for metric in (whole, some):
        metric(SAMPLES, LABELS)
    assert some.aggregate() == {f"val_{name}": whole.aggregate()[name] for name in ("ged", "dice")}
    wrong = MultiRaterMetrics(shown=["geb"])
    wrong(SAMPLES, LABELS)
    with pytest.raises(InputError, match="no figure geb; choose some of ged"):
        wrong.aggregate()


def test_only_figures_are_kept():
    metric = MultiRaterMetrics()
    metric(SAMPLES, LABELS)
    assert metric.get_buffer().numel() == 5 * len(metric.names)


def test_mark_survives_what_the_handlers_do():
    marked = mark_missing(LABELS.bool(), VALID)
    assert marked.dtype == torch.uint8 and (marked[1, 2] == MISSING).all() and (marked[VALID] <= 1).all()
    data = {"label": MetaTensor(LABELS), "rater_valid": VALID, "pred": SAMPLES}
    batched = MarkMissingRatersd()(data)["label"]
    single = torch.stack([MarkMissingRatersd()(case)["label"] for case in decollate_batch(data)])
    assert torch.equal(batched, marked) and torch.equal(single, marked)
    assert torch.equal(data["label"].as_tensor(), LABELS)
    assert torch.equal(MarkMissingRatersd()({"label": LABELS})["label"], LABELS)
    with pytest.raises(InputError, match="rater_valid has shape"):
        mark_missing(LABELS, VALID[:, :3])


@pytest.mark.parametrize("decollate", [False, True])
def test_in_monais_evaluator(decollate, tmp_path):
    """Logits of a network, thresholded, against marked labels; the reports that MONAI writes of it."""
    batches = [
        {"image": SAMPLES[part].float() - 0.5, "label": LABELS[part], "rater_valid": VALID[part]}
        for part in (slice(0, 2), slice(2, 5))
    ]
    pair, triple = from_engine(["pred", "label"]), from_engine(["pred", "label", "pred_mean_mask"])
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=batches,
        network=torch.nn.Identity(),  # the images are the logits
        inferer=SimpleInferer(),
        postprocessing=Compose(
            [
                Lambdad("pred", lambda logits: logits > 0),
                Lambdad("pred", lambda drawn: drawn[..., 1, :, :], overwrite="pred_mean_mask"),  # the second sample
                MarkMissingRatersd(),
            ]
        ),
        key_val_metric={"val_ged": IgniteMetricHandler(GeneralizedEnergyDistance(), output_transform=pair)},
        additional_metrics={
            "figures": MultiRaterMetricHandler(MultiRaterMetrics(), output_transform=triple),
            "without": MultiRaterMetricHandler(MultiRaterMetrics(), output_transform=pair),
        },
        val_handlers=[StatsHandler(output_transform=lambda _: None), MetricsSaver(str(tmp_path), "*", "*")],
        metric_cmp_fn=lambda current, best: current < best,
        decollate=decollate,
    )
    evaluator.run()
    expected = functional.multi_rater_figures(SAMPLES, LABELS, VALID, mean_prediction=SAMPLES[:, 1])
    assert evaluator.state.metrics["val_ged"] == pytest.approx(expected["ged"].mean().item())
    for name, value in expected.items():
        assert evaluator.state.metrics[name] == pytest.approx(value.nanmean().item()), name
    details = evaluator.state.metric_details
    assert details["val_ged"].shape == (5, 1) and details["figures"].shape == (5, len(expected))
    assert details["without"].shape == (5, len(functional.multi_rater_figures(SAMPLES, LABELS)))
    with open(tmp_path / "val_ged_raw.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 6 and float(rows[1][1]) == pytest.approx(expected["ged"][0].item(), abs=1e-4)


def test_in_a_plain_ignite_engine():
    engine = Engine(lambda _engine, part: (SAMPLES[part], LABELS[part]))
    IgniteMetricHandler(EmpiricalWassersteinDistance()).attach(engine, "ewd")
    engine.run([slice(0, 3), slice(3, 5)])
    expected = functional.empirical_wasserstein_distance(SAMPLES, LABELS).mean().item()
    assert engine.state.metrics["ewd"] == pytest.approx(expected)


def test_refuses():
    with pytest.raises(InputError, match="choose one of"):
        EmpiricalWassersteinDistance("l2")
    with pytest.raises(InputError, match="num_classes is 1"):
        PresenceCalibration(num_classes=1)
    with pytest.raises(InputError, match="got no labels"):
        GeneralizedEnergyDistance()(SAMPLES)
    with pytest.raises(InputError, match="class 3 where num_classes is 3"):
        MultiRaterMetrics(num_classes=3)(SAMPLES, LABELS * 3)
    with pytest.raises(InputError, match="255"):
        half = LABELS.clone()
        half[0, 0, :4] = MISSING  # neither missing nor a class
        MultiRaterMetrics()(SAMPLES, half)
