"""Costs between samples and raters that no overlap gives, and the optimal assignment under a cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.optimize import linear_sum_assignment

from ..errors import InputError
from ._overlap import Overlap, check_rater_valid, measure_overlap, plain

__all__ = [
    "KERNELS",
    "OVERLAP_KERNELS",
    "check_kernel",
    "cross_entropy_cost",
    "empirical_wasserstein_distance",
    "hausdorff_cost",
    "optimal_mean_cost",
    "wasserstein_figures",
]

KERNELS = ("iou", "dice", "hausdorff", "cross_entropy")
OVERLAP_KERNELS = KERNELS[:2]  # arithmetic on the counted overlaps: every evaluation can afford them

# As torch.nn.BCELoss: a sample that is certain and wrong costs 100 per pixel, not infinity.
_LOG_FLOOR = -100.0
_BLOCK_ELEMENTS = 1 << 24


def empirical_wasserstein_distance(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    kernel: str = "iou",
    *,
    num_classes: int | None = None,
) -> torch.Tensor:
    """Mean cost of the optimal assignment of samples to raters (Hungarian matching).

    SPU-Net section III-E; cSAE eq. 13, with its kernels eq. 14 to 19 as costs. The publications replicate the raters to
    the number of samples. That is biased where N is not a multiple of R, so here BOTH sets are replicated to the least
    common multiple of N and the image's number of valid raters: the same value where N is a multiple, and the exact
    1-Wasserstein distance of the two sets always.

    Args:
        samples: (B, N, *S); for ``cross_entropy`` probabilities, (B, N, *S) or (B, N, K, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        kernel: ``iou``: 1 - IoU; ``dice``: 1 - Dice; both 0 for two empty masks. ``hausdorff``: pixels; 0 where both
            are empty and the image's diagonal, sqrt(sum (S_i - 1)^2), where one is. ``cross_entropy``: nats, mean over
            the pixels, foreground and background terms, logarithms cut off at -100 as in ``torch.nn.BCELoss``
            (so a hard mask costs 100 times its share of wrong pixels, which is the scale of cSAE Table 1).
        num_classes: classes with the background, for class maps; ``cross_entropy`` takes it from the samples' shape.

    Returns:
        (B,) float32; NaN without a valid rater.

    Raises:
        InputError: an unknown kernel, shapes that do not fit each other, values that are no classes or probabilities.

    Example:
        >>> samples = torch.tensor([[[[1, 1]], [[1, 0]], [[0, 0]]]])  # three samples, two raters
        >>> empirical_wasserstein_distance(samples, samples[:, :2])  # the empty sample is matched in vain
        tensor([0.3333])
    """
    check_kernel(kernel, KERNELS)
    if kernel == "cross_entropy":
        labels = plain(labels, "labels")
        valid = check_rater_valid(rater_valid, labels)
        labels = labels.masked_fill(~valid.view(*valid.shape, *[1] * (labels.ndim - 2)), 0)
        return optimal_mean_cost(cross_entropy_cost(plain(samples, "samples"), labels), valid)
    overlap = measure_overlap(samples, labels, rater_valid, num_classes)
    if kernel == "hausdorff":
        return _hausdorff_wasserstein(overlap, samples, labels)
    return _overlap_wasserstein(overlap, overlap.distance(kernel))


def wasserstein_figures(
    overlap: Overlap,
    kernels: Sequence[str],
    samples: torch.Tensor,
    labels: torch.Tensor,
    distance: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """``ewd`` for the kernel ``iou``, ``ewd_<kernel>`` for others, each (B,) float32.

    Args:
        overlap: the count of ``samples`` (B, N, *S) and ``labels`` (B, R, *S).
        kernels: of :data:`KERNELS` those of masks.
        distance: (B, T, T) 1 - IoU, where it is at hand.
    """
    figures = {}
    for kernel in kernels:
        if kernel == "hausdorff":
            figures["ewd_hausdorff"] = _hausdorff_wasserstein(overlap, samples, labels)
        elif kernel == "dice":
            figures["ewd_dice"] = _overlap_wasserstein(overlap, overlap.distance("dice"))
        else:
            figures["ewd"] = _overlap_wasserstein(overlap, overlap.distance() if distance is None else distance)
    return figures


def check_kernel(kernel: str, known: Sequence[str]) -> None:
    """Refuse what is not among the known kernels."""
    if kernel not in known:
        raise InputError(f"kernel is {kernel!r}; choose one of {', '.join(known)}.")


def optimal_mean_cost(cost: torch.Tensor, rater_valid: torch.Tensor) -> torch.Tensor:
    """Mean cost of the best assignment of samples to raters, every one of them carrying the same weight of its set.

    Both sets are replicated to the least common multiple of N and the image's number of valid raters n, which makes the
    assignment the exact 1-Wasserstein distance between the two uniform empirical measures for every N and n.

    Args:
        cost: (B, N, R). Goes to the CPU in one transfer; the assignment is the only step that is done per image.
        rater_valid: (B, R) bool.

    Returns:
        (B,) float32 on the cost's device; NaN for an image without a valid rater.
    """
    costs = cost.masked_fill(~rater_valid.unsqueeze(1), math.nan).cpu().numpy()
    means = np.full(len(costs), math.nan, dtype=np.float32)
    for index, full in enumerate(costs):
        matrix = full[:, ~np.isnan(full[0])]
        samples, raters = matrix.shape
        if raters == 0:
            continue
        if min(samples, raters) > 1:
            multiple = math.lcm(samples, raters)
            matrix = matrix.repeat(multiple // samples, axis=0).repeat(multiple // raters, axis=1)
            matrix = matrix[linear_sum_assignment(matrix)]
        means[index] = matrix.mean()
    return torch.from_numpy(means).to(cost.device)


def cross_entropy_cost(samples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every rater's labels under every sample's probabilities, mean over the pixels, in nats.

    Args:
        samples: probabilities, (B, N, *S) of the foreground or (B, N, K, *S) of K classes.
        labels: (B, R, *S) masks or class maps.

    Returns:
        (B, N, R) float32. Logarithms are cut off at -100, as in ``torch.nn.BCELoss``.
    """
    if samples.ndim == labels.ndim + 1 and samples.shape[2] == 1:
        samples = samples.squeeze(2)
    with_classes = samples.ndim == labels.ndim + 1
    spatial = samples.shape[3:] if with_classes else samples.shape[2:]
    if samples.ndim < 3 or samples.shape[0] != labels.shape[0] or spatial != labels.shape[2:]:
        raise InputError(
            f"samples have shape {tuple(samples.shape)} and labels {tuple(labels.shape)}; the cross_entropy kernel "
            "takes probabilities (B, N, *S) or (B, N, K, *S) and labels (B, R, *S)."
        )
    if not bool(((samples >= 0) & (samples <= 1)).all()):
        raise InputError("samples hold values outside [0, 1] or NaN; pass probabilities, not logits, to cross_entropy.")
    classes = samples.shape[2] if with_classes else 2
    if labels.numel() and int(labels.max()) >= classes:
        raise InputError(
            f"labels hold the class {int(labels.max())} where samples give the probabilities of {classes} classes; "
            "pass one probability map per class."
        )
    images, pixels = samples.shape[0], math.prod(spatial)
    total = torch.zeros(images, samples.shape[1], labels.shape[1], device=samples.device)
    rows = max(1, _BLOCK_ELEMENTS // (pixels * samples.shape[1]))
    labels = labels.flatten(2)
    with torch.autocast(samples.device.type, enabled=False):
        for first in range(0, images, rows):
            some, drawn = samples[first : first + rows].float(), labels[first : first + rows]
            for c in range(classes):
                if with_classes:
                    likelihood = some[:, :, c]
                else:
                    likelihood = some if c == 1 else 1 - some
                log_likelihood = likelihood.flatten(2).log().clamp(min=_LOG_FLOOR)
                total[first : first + rows] -= log_likelihood @ (drawn == c).float().transpose(1, 2)
    return total / pixels


def hausdorff_cost(samples: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Hausdorff distance between every sample and every rater, in pixels, averaged over the counted classes.

    Both empty: 0. One empty: the image's diagonal, the largest distance that two of its pixels can have.

    Args:
        samples: (B, N, *S) class maps. labels: (B, R, *S). counted: (B, C) bool, the classes to average over.

    Returns:
        (B, N, R) float64 on the CPU.
    """
    number = samples.shape[1]
    maps = torch.cat([samples, labels], dim=1).cpu().numpy()
    costs = np.zeros((len(maps), number, labels.shape[1]))
    for index, chosen in enumerate(counted.cpu().numpy()):
        for c in np.flatnonzero(chosen) + 1:
            masks = maps[index] == c if counted.shape[1] > 1 else maps[index] != 0
            costs[index] += _hausdorff(masks, number)
        costs[index] /= max(1, chosen.sum())
    return torch.from_numpy(costs)


def _hausdorff(masks: np.ndarray, number: int) -> np.ndarray:
    """(N, R) distances between the first N and the other R masks (T, *S) of one image."""
    spatial = masks.shape[1:]
    diagonal = math.sqrt(sum((size - 1) ** 2 for size in spatial))
    filled = np.any(masks.reshape(len(masks), -1), axis=1)
    # Distances are asked for at foreground pixels only, so the box around all foreground is enough.
    for axis in range(1, masks.ndim):
        rest = tuple(a for a in range(masks.ndim) if a != axis)
        where = np.flatnonzero(np.any(masks, axis=rest))
        if where.size:
            masks = masks.take(np.arange(where[0], where[-1] + 1), axis=axis)
    # One transform for all masks: along the stacking axis the way is too far for any distance to cross.
    apart = (2 * diagonal + 1, *[1] * len(spatial))
    distance = distance_transform_edt(~masks, sampling=apart) if filled.any() else np.zeros(masks.shape)
    masks, distance = masks.reshape(len(masks), -1), distance.reshape(len(masks), -1)
    cost = np.zeros((number, len(masks) - number))
    for rater in range(cost.shape[1]):
        forth = np.where(masks[:number], distance[number + rater], 0).max(1)
        back = np.where(masks[number + rater], distance[:number], 0).max(1)
        cost[:, rater] = np.maximum(forth, back)
    alone = filled[:number, None] != filled[None, number:]
    return np.where(alone, diagonal, cost)


def _overlap_wasserstein(overlap: Overlap, distance: torch.Tensor) -> torch.Tensor:
    return optimal_mean_cost(distance[:, : overlap.num_samples, overlap.num_samples :], overlap.valid)


def _hausdorff_wasserstein(overlap: Overlap, samples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    cost = hausdorff_cost(plain(samples, "samples"), plain(labels, "labels"), overlap.counted)
    return optimal_mean_cost(cost, overlap.valid.cpu()).to(overlap.valid.device)
