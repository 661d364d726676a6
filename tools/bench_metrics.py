"""Time the evaluation suite: 3,000 images x 16 samples x 4 raters at 128 x 128, all figures but Hausdorff.

    python tools/bench_metrics.py [--images 3000] [--samples 16] [--raters 4] [--size 128] [--batch 32] [--device cpu]
                                  [--threads 2] [--hausdorff]

What an evaluation does with a batch of logits is timed: the summary of the samples, every figure of masks and of
probabilities, the assignments, the bins and curves, and at the end the figures of the data set. The intervals over
patients, which an evaluation makes once, have a line of their own. Logits and labels are made batch by batch, which is
not timed. The alternatives are what evaluation scripts commonly do, one image at a time:
NumPy loops over pairs of masks with SciPy's assignment, MONAI's metrics, scikit-learn. They run on a few images, in the
same process, must give the same figures, and their time is given for all images. With --hausdorff its cost is timed on
the same few images: it is in no other number.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric, calibration_binning
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import log_loss
from torch import Tensor

from aleatoric.evaluation.curves import data_set_figures
from aleatoric.metrics import MultiRaterMetrics
from aleatoric.metrics.functional import (
    RELIABILITY_BINS,
    empirical_wasserstein_distance,
    multi_rater_figures,
    pixel_figures,
    reliability_bins,
)
from aleatoric.metrics.summary import summarize_samples
from aleatoric.statistics import patient_bootstrap

CLASSES = ("background", "nodule")
CASES_A_PATIENT = 18  # as in LIDC-IDRI: 15,729 patches of 875 patients


def discs(images: int, masks: int, size: int, generator: torch.Generator) -> Tensor:
    """(images, masks, size, size) signed distance from the rim of discs that differ by centre and radius."""
    grid = torch.arange(size, dtype=torch.float32)
    centre = size / 2 + size / 32 * torch.randn(images, masks, 2, 1, generator=generator)
    radius = size / 10 * (0.5 + torch.rand(images, masks, 1, 1, generator=generator))
    radius *= torch.rand(images, masks, 1, 1, generator=generator) > 1 / 3  # a third is empty
    squared = (grid - centre[:, :, 0]).square().unsqueeze(-1) + (grid - centre[:, :, 1]).square().unsqueeze(-2)
    return radius - squared.sqrt()


def batches(options: argparse.Namespace) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (B, N, 1, size, size) and labels (B, R, size, size) uint8."""
    generator = torch.Generator().manual_seed(0)
    for start in range(0, options.images, options.batch):
        count = min(options.batch, options.images - start)
        logits = discs(count, options.samples, options.size, generator).unsqueeze(2)
        labels = discs(count, options.raters, options.size, generator) > 0
        yield logits.to(options.device), labels.to(options.device, torch.uint8)


class Stopwatch:
    """By name, summed up: seconds by the clock, and those that the cores of the CPU were at work, all together."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.times: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))

    def __call__(self, name: str, function: Callable[[], Any]) -> Any:
        start = self._now()
        result = function()
        self.times[name] += self._now() - start
        return result

    def _now(self) -> np.ndarray:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return np.array([time.perf_counter(), time.process_time()])


def print_times(times: Mapping[str, np.ndarray], ours: float) -> None:
    """A line each: both times, and how many times as long as ours by the clock."""
    width = max(map(len, times))
    for name, (seconds, work) in times.items():
        print(f"{name:<{width}}  {seconds:9.3f} s  {work:9.3f} s of CPU  {seconds / ours:9.2f}x")


# what others do, one image at a time ----------------------------------------------------------------------------------


def loop_over_pairs(samples: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """GED, EWD and HM-IoU of masks (B, N, H, W) and (B, R, H, W), one pair of masks at a time."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        union = np.logical_or(a, b).sum()
        return 1 - np.logical_and(a, b).sum() / union if union else 0.0

    def matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.array([[distance(a, b) for b in second] for a in first])

    figures: dict[str, list[float]] = {"ged": [], "ewd": []}
    for s, y in zip(samples, labels, strict=True):
        cross = matrix(s, y)
        figures["ged"].append(2 * cross.mean() - matrix(s, s).mean() - matrix(y, y).mean())
        figures["ewd"].append(assigned(cross))
    return figures


def assigned(cost: np.ndarray) -> float:
    """Mean cost of the best assignment of N samples to R raters, both replicated to the least common multiple."""
    multiple = np.lcm(*cost.shape)
    cost = cost.repeat(multiple // cost.shape[0], axis=0).repeat(multiple // cost.shape[1], axis=1)
    return cost[linear_sum_assignment(cost)].mean()


def monai_dice(samples: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Mean Dice of all pairs by MONAI's metric, one call per image."""
    metric = DiceMetric(ignore_empty=False)
    figures: list[float] = []
    for s, y in zip(samples, labels, strict=True):
        pairs = s.repeat_interleave(len(y), 0).unsqueeze(1), y.repeat(len(s), 1, 1).unsqueeze(1)
        figures.append(float(metric(*pairs).mean()))
    return {"dice": figures}


def monai_calibration(mean: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """ECE and ACE against the share of raters by MONAI's binning, one call per image."""
    figures: dict[str, list[float]] = {"ece": [], "ace": []}
    for p, y in zip(mean, labels, strict=True):
        predicted, share, count = calibration_binning(p[None], y.float().mean(0)[None, None], RELIABILITY_BINS)
        gap, weight = (predicted - share).abs().nan_to_num(), count / count.sum()
        figures["ece"].append(float((gap * weight).sum()))
        figures["ace"].append(float(gap.sum() / (count > 0).sum()))
    return figures


def sklearn_cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """EWD under the cross-entropy, scikit-learn's log loss one pair of sample and rater at a time."""
    figures: list[float] = []
    for p, y in zip(probabilities, labels, strict=True):
        cost = [[log_loss(r.ravel(), s.ravel().astype(float), labels=[0, 1]) for r in y] for s in p]
        figures.append(assigned(np.array(cost)))
    return {"ewd_cross_entropy": figures}


def monai_hausdorff(samples: Tensor, labels: Tensor) -> np.ndarray:
    """(B, N, R) Hausdorff distances of masks that are not empty, one pair of masks at a time."""
    metric = HausdorffDistanceMetric(include_background=True)
    return np.array(
        [[[float(metric(s[None, None], y[None, None])) for y in ys] for s in ss] for ss, ys in zip(samples, labels)]
    )


# the measurement ------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 3000), ("samples", 16), ("raters", 4), ("size", 128), ("batch", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compared", type=int, default=4, help="images that the alternatives see")
    parser.add_argument("--hausdorff", action="store_true", help="time the Hausdorff kernel too, per image")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    logits, labels = (part[: options.compared] for part in next(batches(options)))
    factor = options.images / len(logits)
    others = {name: times * factor for name, times in compare(logits, labels).items()}
    metric = MultiRaterMetrics()
    ours = suite(options, metric)
    print(
        f"{options.images} images x {options.samples} samples x {options.raters} raters, {options.size} x "
        f"{options.size}, batches of {options.batch}, {options.device}, {options.threads} threads; alternatives from "
        f"{len(logits)} images"
    )
    print_times({"all figures but Hausdorff": ours, **others}, ours[0])
    print(f"\nintervals of all of them, 10,000 resamples of {-(-options.images // CASES_A_PATIENT)} patients:")
    print_times({"intervals": intervals(metric, options)}, ours[0])
    print("\nwhere the time goes, each part by itself:")
    print_times(parts_of(options), ours[0])
    if options.hausdorff:
        print("\nHausdorff, per image:")
        times = hausdorff(logits, labels)
        print_times(times, times["ours"][0])
    return 0


def suite(options: argparse.Namespace, metric: MultiRaterMetrics) -> np.ndarray:
    """Times of an evaluation, without its network and its intervals; ``metric`` has seen all images afterwards."""
    watch = Stopwatch(options.device)
    score(metric, *next(batches(options)))  # warm
    metric.reset()
    for logits, labels in batches(options):
        watch("", partial(score, metric, logits, labels))
    watch("", partial(data_set_figures, metric, CLASSES, range(options.images), resamples=0))
    return watch.times[""]


def intervals(metric: MultiRaterMetrics, options: argparse.Namespace) -> np.ndarray:
    """Times of the bootstrap over patients."""
    patients = [number // CASES_A_PATIENT for number in range(options.images)]
    watch, cases = Stopwatch("cpu"), np.stack([value.numpy() for value in metric.cases().values()], axis=1)
    watch("", partial(patient_bootstrap, cases, patients))
    watch("", partial(data_set_figures, metric, CLASSES, patients))
    return watch.times[""]


def score(metric: MultiRaterMetrics, logits: Tensor, labels: Tensor) -> None:
    """What an evaluation does with a batch."""
    summary = summarize_samples([logits], labels)
    metric(summary.masks, labels, summary=summary)


def parts_of(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Times of the suite's parts, each by itself."""
    watch = Stopwatch(options.device)
    for logits, labels in batches(options):
        summary = watch("summary of the samples", partial(summarize_samples, [logits], labels))
        of_masks = partial(multi_rater_figures, summary.masks, labels, mean_prediction=summary.mean_mask)
        watch("figures of masks", of_masks)
        watch("figures of probabilities", partial(pixel_figures, summary, labels))
        watch("bins of the reliability diagram", partial(reliability_bins, summary.mean, labels))
    return dict(watch.times)


def compare(logits: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """Times of the alternatives, which must find what the suite finds."""
    summary = summarize_samples([logits], labels)
    found = {**multi_rater_figures(summary.masks, labels), **pixel_figures(summary, labels)}
    masks, raters = summary.masks.cpu(), labels.cpu()
    mean, probabilities = summary.mean.cpu(), logits.sigmoid().squeeze(2).cpu()
    watch = Stopwatch("cpu")
    expected = {
        **watch("NumPy, one pair at a time: GED, EWD", lambda: loop_over_pairs(masks.numpy(), raters.numpy())),
        **watch("MONAI DiceMetric, an image at a time: Dice", lambda: monai_dice(masks, raters)),
        **watch("MONAI calibration_binning: ECE, ACE", lambda: monai_calibration(mean, raters)),
        **watch(
            "scikit-learn log_loss, one pair at a time: EWD with cross-entropy",
            lambda: sklearn_cross_entropy(probabilities.numpy(), raters.numpy()),
        ),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].cpu().numpy(), values, rtol=1e-3, atol=1e-6, err_msg=name)
    return dict(watch.times)


def hausdorff(logits: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """Times an image; masks without a pixel, of which MONAI knows no distance, are given one here."""
    masks, raters = (logits.squeeze(2) > 0).cpu(), labels.cpu().clone()
    masks[..., 0, 0], raters[..., 0, 0] = True, 1
    watch = Stopwatch("cpu")
    found = watch("ours", lambda: empirical_wasserstein_distance(masks, raters, kernel="hausdorff"))
    cost = watch("MONAI, one pair at a time", lambda: monai_hausdorff(masks, raters))
    np.testing.assert_allclose(found.numpy(), [assigned(c) for c in cost], rtol=1e-5)
    return {name: times / len(masks) for name, times in watch.times.items()}


if __name__ == "__main__":
    sys.exit(main())
