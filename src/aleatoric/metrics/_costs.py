"""Costs between samples and raters that no overlap gives: cross-entropy and Hausdorff distance."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from ..errors import InputError
from ._overlap import _highest_class

__all__ = ["cross_entropy_cost", "hausdorff_cost"]

# As torch.nn.BCELoss: a sample that is certain and wrong costs 100 per pixel, not infinity.
_LOG_FLOOR = -100.0
_BLOCK_ELEMENTS = 1 << 24


def cross_entropy_cost(samples: torch.Tensor, labels: torch.Tensor, num_classes: int | None = None) -> torch.Tensor:
    """Cross-entropy of every rater's labels under every sample's probabilities, mean over the pixels, in nats.

    Args:
        samples: probabilities, (B, N, *S) of the foreground or (B, N, K, *S) of K classes.
        labels: (B, R, *S) masks or class maps.
        num_classes: with the background; to be checked against the samples, nothing else.

    Returns:
        (B, N, R) float32. Logarithms are cut off at -100, as in ``torch.nn.BCELoss``.

    Raises:
        InputError: shapes that do not fit each other, no probabilities, values that are no classes of the samples.
    """
    if samples.ndim == labels.ndim + 1 and samples.shape[2] == 1:
        samples = samples.squeeze(2)
    with_classes = samples.ndim == labels.ndim + 1
    spatial = samples.shape[3:] if with_classes else samples.shape[2:]
    if (
        min(samples.ndim, labels.ndim) < 3
        or 0 in (*samples.shape[1:], *labels.shape[1:])
        or samples.shape[0] != labels.shape[0]
        or spatial != labels.shape[2:]
    ):
        raise InputError(
            f"samples have shape {tuple(samples.shape)} and labels {tuple(labels.shape)}; the cross_entropy kernel "
            "takes probabilities (B, N, *S) or (B, N, K, *S) and labels (B, R, *S), N and R at least 1."
        )
    if samples.device != labels.device:
        raise InputError(f"samples are on {samples.device} and labels on {labels.device}; move them to one device.")
    if not bool(((samples >= 0) & (samples <= 1)).all()):
        raise InputError("samples hold values outside [0, 1] or NaN; pass probabilities, not logits, to cross_entropy.")
    classes = samples.shape[2] if with_classes else 2
    if num_classes is not None and max(num_classes, 2) != classes:
        raise InputError(
            f"num_classes is {num_classes} where samples give the probabilities of {classes} classes; leave it out, or "
            "pass one probability map per class."
        )
    highest = _highest_class(labels, "labels")
    if highest >= classes:
        raise InputError(
            f"labels hold the class {highest} where samples give the probabilities of {classes} classes; "
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


def hausdorff_cost(
    samples: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor, spacing: torch.Tensor | None = None
) -> torch.Tensor:
    """Hausdorff distance between every sample and every rater, averaged over the counted classes.

    Between the sets of all foreground pixels' centres, not of edges. Both empty: 0. One empty: the image's diagonal,
    the largest distance that two of its pixels can have. The cost is that of one exact Euclidean distance transform
    (SciPy's, on the CPU) per mask and class over the box around all foreground of the image.

    Args:
        samples: (B, N, *S) class maps. labels: (B, R, *S). counted: (B, C) bool, the classes to average over.
        spacing: (B, dims) mm between neighbouring pixels along each spatial axis; None: 1, distances in pixels.

    Returns:
        (B, N, R) float64 on the CPU.
    """
    number, dims = samples.shape[1], samples.ndim - 2
    # A missing rater's map may hold anything; what becomes of it here is not looked at.
    maps = torch.cat([samples.to(torch.uint8), labels.to(torch.uint8)], dim=1).cpu().numpy()
    costs = np.zeros((len(maps), number, labels.shape[1]))
    steps = np.ones((len(maps), dims)) if spacing is None else spacing.cpu().numpy()
    for index, chosen in enumerate(counted.cpu().numpy()):
        for c in np.flatnonzero(chosen) + 1:
            masks = maps[index] == c if counted.shape[1] > 1 else maps[index] != 0
            costs[index] += _hausdorff(masks, number, steps[index])
        costs[index] /= max(1, chosen.sum())
    return torch.from_numpy(costs)


def _hausdorff(masks: np.ndarray, number: int, step: np.ndarray) -> np.ndarray:
    """(N, R) distances between the first N and the other R masks (T, *S) of one image, of pixels ``step`` (dims,)."""
    spatial = masks.shape[1:]
    diagonal = math.sqrt(sum(((size - 1) * width) ** 2 for size, width in zip(spatial, step, strict=True)))
    filled = np.any(masks.reshape(len(masks), -1), axis=1)
    # Distances are asked for at foreground pixels only, so the box around all foreground is enough.
    for axis in range(1, masks.ndim):
        rest = tuple(a for a in range(masks.ndim) if a != axis)
        where = np.flatnonzero(np.any(masks, axis=rest))
        if where.size:
            masks = masks.take(np.arange(where[0], where[-1] + 1), axis=axis)
    # One transform for all masks: along the stacking axis the way is too far for any distance to cross.
    apart = (2 * diagonal + 1, *step)
    distance = distance_transform_edt(~masks, sampling=apart) if filled.any() else np.zeros(masks.shape)
    masks, distance = masks.reshape(len(masks), -1), distance.reshape(len(masks), -1)
    cost = np.zeros((number, len(masks) - number))
    for rater in range(cost.shape[1]):
        forth = np.where(masks[:number], distance[number + rater], 0).max(1)
        back = np.where(masks[number + rater], distance[:number], 0).max(1)
        cost[:, rater] = np.maximum(forth, back)
    alone = filled[:number, None] != filled[None, number:]
    return np.where(alone, diagonal, cost)
