"""The empirical Wasserstein distance and what else rests on the optimal assignment of samples to raters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ..errors import InputError
from ._costs import cross_entropy_cost, hausdorff_cost
from ._overlap import Overlap, check_rater_valid, class_maps, measure_overlap, plain
from ._units import Spacing, check_spacing

__all__ = [
    "KERNELS",
    "OVERLAP_KERNELS",
    "check_kernel",
    "dice_matched",
    "empirical_wasserstein_distance",
    "hm_iou",
    "optimal_mean_cost",
    "wasserstein_figures",
]

KERNELS = ("iou", "dice", "hausdorff", "cross_entropy")
OVERLAP_KERNELS = KERNELS[:2]  # arithmetic on the counted overlaps: every evaluation can afford them


def empirical_wasserstein_distance(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    kernel: str = "iou",
    *,
    num_classes: int | None = None,
    spacing: Spacing | None = None,
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
        kernel: ``iou``: 1 - IoU; ``dice``: 1 - Dice; both 0 for two empty masks. ``hausdorff``: pixels, or mm with
            ``spacing``; 0 where both are empty and the image's diagonal, sqrt(sum (S_i - 1)^2), where one is. It needs
            a distance transform per mask, on one core: about 5 ms per image for 20 masks of 128 x 128 with a small
            lesion and 70 ms where the foreground reaches over all of the image, while the overlap kernels take half a
            millisecond. ``cross_entropy``: nats, mean over the pixels, foreground and background terms, logarithms cut
            off at -100 as in ``torch.nn.BCELoss`` (so a hard mask costs 100 times its share of wrong pixels, which is
            the scale of cSAE Table 1).
        num_classes: classes with the background, for class maps; ``cross_entropy``, whose samples' shape gives it,
            checks it.
        spacing: mm between neighbouring pixels along each spatial axis, for ``hausdorff``: one number per axis for all
            images, or (B, axes).

    Returns:
        (B,) float32; NaN without a valid rater.

    Raises:
        InputError: an unknown kernel, shapes that do not fit each other, values that are no classes or probabilities,
            a spacing that is not positive or is given to a kernel that has no use for it.

    Example:
        >>> samples = torch.tensor([[[[1, 1]], [[1, 0]], [[0, 0]]]])  # three samples, two raters
        >>> empirical_wasserstein_distance(samples, samples[:, :2])  # the empty sample is matched in vain
        tensor([0.3333])
    """
    check_kernel(kernel, KERNELS)
    if spacing is not None and kernel != "hausdorff":
        raise InputError(f"spacing is given for the kernel {kernel!r}, which has no unit of length; leave it out.")
    if kernel == "cross_entropy":
        labels = class_maps(labels, "labels")
        valid = check_rater_valid(rater_valid, labels)
        labels = labels.masked_fill(~valid.view(*valid.shape, *[1] * (labels.ndim - 2)), 0)
        return optimal_mean_cost(cross_entropy_cost(plain(samples, "samples"), labels, num_classes), valid)
    overlap = measure_overlap(samples, labels, rater_valid, num_classes)
    if kernel == "hausdorff":
        return _hausdorff_wasserstein(overlap, samples, labels, spacing)
    return _overlap_wasserstein(overlap, overlap.distance(kernel))


def hm_iou(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    *,
    num_classes: int | None = None,
) -> torch.Tensor:
    """Hungarian-matched IoU: mean IoU of the optimal assignment of samples to raters, both replicated to one number.

    Kohl et al., A Hierarchical Probabilistic U-Net (2019). It is 1 - EWD with the kernel 1 - IoU, see
    :func:`empirical_wasserstein_distance` for the replication, and shares its conventions: two empty masks agree (1).

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: classes with the background, for class maps.

    Returns:
        (B,) float32, from 0 to 1; NaN without a valid rater.

    Example:
        >>> samples = torch.tensor([[[[1, 1]], [[1, 0]], [[0, 0]], [[0, 0]]]])
        >>> hm_iou(samples, samples[:, :2])  # two of four samples find their rater
        tensor([0.5000])
    """
    return 1 - empirical_wasserstein_distance(samples, labels, rater_valid, num_classes=num_classes)


def dice_matched(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    *,
    num_classes: int | None = None,
    surplus: str = "replicate",
) -> torch.Tensor:
    """D_match: mean Dice of the optimal assignment of samples to raters (Wu et al., D-Persona, CVPR 2024).

    D-Persona scores as many predictions as there are raters, and there all definitions agree. With more samples they do
    not: its released code gives every rater another sample and leaves the surplus out, so that the score rises with the
    number of samples, as D_max does. The default replicates both sets, so that every sample counts: 1 - EWD with the
    kernel 1 - Dice.

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: classes with the background, for class maps.
        surplus: ``replicate`` both sets to their least common multiple, or ``ignore`` the samples (or, where they are
            more, the raters) that the best one-to-one assignment leaves over, as D-Persona's code does.

    Returns:
        (B,) float32, from 0 to 1; NaN without a valid rater.

    Raises:
        InputError: an unknown ``surplus``, shapes that do not fit each other, values that are no classes.

    Example:
        >>> samples = torch.tensor([[[[1, 1]], [[1, 0]], [[0, 0]], [[0, 0]]]])
        >>> raters = samples[:, :2]
        >>> dice_matched(samples, raters), dice_matched(samples, raters, surplus="ignore")
        (tensor([0.5000]), tensor([1.]))
    """
    if surplus not in ("replicate", "ignore"):
        raise InputError(f"surplus is {surplus!r}; pass 'replicate' or 'ignore'.")
    overlap = measure_overlap(samples, labels, rater_valid, num_classes)
    return 1 - _overlap_wasserstein(overlap, overlap.distance("dice"), replicate=surplus == "replicate")


def wasserstein_figures(
    overlap: Overlap,
    kernels: Sequence[str],
    samples: torch.Tensor,
    labels: torch.Tensor,
    distance: torch.Tensor,
    spacing: Spacing | None = None,
) -> dict[str, torch.Tensor]:
    """``ewd`` for the kernel ``iou``, ``ewd_<kernel>`` for others, and the scores that they imply, each (B,) float32.

    Args:
        overlap: the count of ``samples`` (B, N, *S) and ``labels`` (B, R, *S).
        kernels: of :data:`KERNELS` those of masks.
        distance: (B, T, T) 1 - IoU.
        spacing: mm per pixel, for ``hausdorff``.
    """
    figures = {}
    for kernel in kernels:
        if kernel == "hausdorff":
            figures["ewd_hausdorff"] = _hausdorff_wasserstein(overlap, samples, labels, spacing)
        elif kernel == "dice":
            figures["ewd_dice"] = _overlap_wasserstein(overlap, overlap.distance("dice"))
            figures["dice_matched"] = 1 - figures["ewd_dice"]
        else:
            figures["ewd"] = _overlap_wasserstein(overlap, distance)
            figures["hm_iou"] = 1 - figures["ewd"]
    return figures


def check_kernel(kernel: str, known: Sequence[str]) -> None:
    """Refuse what is not among the known kernels."""
    if kernel not in known:
        raise InputError(f"kernel is {kernel!r}; choose one of {', '.join(known)}.")


def optimal_mean_cost(cost: torch.Tensor, rater_valid: torch.Tensor, replicate: bool = True) -> torch.Tensor:
    """Mean cost of the best assignment of samples to raters, every one of them carrying the same weight of its set.

    Both sets are replicated to the least common multiple of N and the image's number of valid raters n, which makes the
    assignment the exact 1-Wasserstein distance between the two uniform empirical measures for every N and n.

    Args:
        cost: (B, N, R). Goes to the CPU in one transfer; the assignment is the only step that is done per image.
        rater_valid: (B, R) bool.
        replicate: False: one to one, the larger set's surplus left out.

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
        if min(samples, raters) > 1 or not replicate:
            if replicate:
                multiple = math.lcm(samples, raters)
                matrix = matrix.repeat(multiple // samples, axis=0).repeat(multiple // raters, axis=1)
            matrix = matrix[linear_sum_assignment(matrix)]
        means[index] = matrix.mean()
    return torch.from_numpy(means).to(cost.device)


def _overlap_wasserstein(overlap: Overlap, distance: torch.Tensor, replicate: bool = True) -> torch.Tensor:
    return optimal_mean_cost(distance[:, : overlap.num_samples, overlap.num_samples :], overlap.valid, replicate)


def _hausdorff_wasserstein(
    overlap: Overlap, samples: torch.Tensor, labels: torch.Tensor, spacing: Spacing | None
) -> torch.Tensor:
    step = None if spacing is None else check_spacing(spacing, samples.shape)
    cost = hausdorff_cost(class_maps(samples, "samples"), class_maps(labels, "labels"), overlap.counted, step)
    return optimal_mean_cost(cost, overlap.valid.cpu()).to(overlap.valid.device)
