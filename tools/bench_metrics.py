"""Time GED and EWD of 100 images x 16 samples x 4 raters at 128 x 128, against a loop over pairs of masks.

    python tools/bench_metrics.py [--device cpu] [--threads 2] [--images 100] [--repeats 20]

The alternative is what evaluation scripts commonly do: NumPy, one pair of masks at a time, then SciPy's assignment.
It runs on a part of the images, in the same process, and must give the same figures.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from aleatoric.metrics.functional import (
    empirical_wasserstein_distance,
    generalized_energy_distance,
    multi_rater_figures,
)
from timing import best_seconds, print_ratios


def blobs(images: int, masks: int, size: int, seed: int) -> torch.Tensor:
    """(images, masks, size, size) bool: discs that differ by centre and radius, a third of the masks empty."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.arange(size, dtype=torch.float32)
    centre = size / 2 + 4 * torch.randn(images, masks, 2, 1, generator=generator)
    radius = size / 10 * (0.5 + torch.rand(images, masks, 1, 1, generator=generator))
    radius *= torch.rand(images, masks, 1, 1, generator=generator) > 1 / 3
    distance = (grid - centre[:, :, 0]).square().unsqueeze(-1) + (grid - centre[:, :, 1]).square().unsqueeze(-2)
    return distance < radius.square()


def loop_over_pairs(samples: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) GED and EWD, one pair of masks at a time."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        union = np.logical_or(a, b).sum()
        return 1 - np.logical_and(a, b).sum() / union if union else 0.0

    def matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.array([[distance(a, b) for b in second] for a in first])

    energy, transport = [], []
    for s, y in zip(samples, labels, strict=True):
        cross = matrix(s, y)
        energy.append(2 * cross.mean() - matrix(s, s).mean() - matrix(y, y).mean())
        cost = cross.repeat(len(s) // len(y), axis=1)  # 16 samples are a multiple of 4 raters
        transport.append(cost[linear_sum_assignment(cost)].mean())
    return np.array(energy), np.array(transport)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    samples, labels = blobs(options.images, 16, 128, seed=0), blobs(options.images, 4, 128, seed=1)
    part = max(1, options.images // 10)
    start = time.perf_counter()
    reference = loop_over_pairs(samples[:part].numpy(), labels[:part].numpy())
    loop = (time.perf_counter() - start) * options.images / part

    samples, labels = samples.to(options.device), labels.to(options.device)
    ours = multi_rater_figures(samples, labels)
    for name, expected in zip(("ged", "ewd"), reference, strict=True):
        np.testing.assert_allclose(ours[name][:part].cpu().numpy(), expected, atol=1e-6)

    print(f"{options.images} images x 16 samples x 4 raters, 128 x 128, {options.device}, {options.threads} threads")
    functions: dict[str, Callable[[], object]] = {
        "one pass, GED + EWD and all other figures": lambda: multi_rater_figures(samples, labels),
        "GED + EWD by a call each": lambda: (
            generalized_energy_distance(samples, labels),
            empirical_wasserstein_distance(samples, labels),
        ),
    }
    times = best_seconds(functions, options.repeats, options.device)
    print_ratios(
        {"NumPy loop over pairs, GED + EWD": loop, **times},
        "NumPy loop over pairs, GED + EWD",
        f"   (from {part} images)",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
