"""What the axes of a latent space hold and what they change in the segmentation (SPU-Net, Figs. 4 to 6).

The axes are those of :func:`~aleatoric.distributions.principal_axes`: an axis-aligned prior's own axes, any other
prior's principal axes, a flow's those of its base, in which all steps are taken before the flow bends them. The network
is a :class:`~aleatoric.networks.nets.ProbabilisticUNet` or has its ``prior``, ``backbone`` and ``decode``; set it to
evaluation first. ``images`` may lie on another device than the network. Results lie on the network's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import FlowDistribution, base_of, principal_axes
from ..errors import InputError
from ..metrics.functional import effective_rank, empirical_wasserstein_distance, gini_index
from ..randomness import seeded
from ..transforms import LogitsToMasksd

__all__ = ["FrozenAxes", "LatentSummary", "freeze_axes", "interpolate_axes", "latent_summary"]

Progress = Callable[[int], Any]


class LatentSummary(NamedTuple):
    """The prior p(z | x) of each image."""

    mean: Tensor  # (B, d)  of each coordinate
    variance: Tensor  # (B, d)  of each coordinate
    scales: Tensor  # (B, d)  standard deviations along the axes, see above
    axes: Tensor  # (B, d, d)  column j is the direction of axis j
    effective_rank: Tensor  # (B,)
    gini_index: Tensor  # (B,)


class FrozenAxes(NamedTuple):
    """Empirical Wasserstein distance where the draws stay at the mean along n axes, n = 0 to d."""

    smallest_first: Tensor  # (B, d + 1)  the axis of the smallest standard deviation is frozen first
    largest_first: Tensor  # (B, d + 1)  the control: the largest first


@torch.no_grad()
def latent_summary(network: Any, images: Tensor, chunk_size: int = 32) -> LatentSummary:
    """Mean and variance of the prior, its effective rank and Gini index, image by image (SPU-Net, Fig. 4).

    Args:
        network: see above; the decoder is not run.
        images: (B, C, *S).
        chunk_size: images at a time.
    """
    prior = _prior(network, images, chunk_size)
    scales, axes = principal_axes(prior)
    base = base_of(prior)
    return LatentSummary(base.mean, base.variance, scales, axes, effective_rank(scales), gini_index(scales))


@torch.no_grad()
def interpolate_axes(
    network: Any,
    images: Tensor,
    values: Sequence[float] = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0),
    axes: Sequence[int] | None = None,
    chunk_size: int = 8,
) -> Tensor:
    """Decode the prior's mean with one axis moved at a time (SPU-Net, Fig. 5). The backbone runs once per image.

    Args:
        network: see above.
        images: (B, C, *S).
        values: V positions, in the prior's standard deviations along the axis.
        axes: A of them, counted from 0; default all d.
        chunk_size: images, and segmentations of them, at a time.

    Returns:
        logits (B, A, V, K, *S), float32.

    Raises:
        InputError: an axis that the latent space lacks.
    """
    prior = _prior(network, images, chunk_size)
    scales, directions = principal_axes(prior)  # (B, d), (B, d, d)
    dimensions = scales.shape[-1]
    chosen = list(range(dimensions)) if axes is None else [int(axis) for axis in axes]
    if not all(0 <= axis < dimensions for axis in chosen):
        raise InputError(f"found the axes {chosen}, expected some of 0 to {dimensions - 1}; the space has no others.")
    steps = torch.as_tensor(values, dtype=scales.dtype, device=scales.device)
    move = (directions * scales.unsqueeze(-2)).mT[:, chosen]  # (B, A, d): one standard deviation along each
    z = base_of(prior).mean[:, None, None] + steps[:, None] * move.unsqueeze(-2)  # (B, A, V, d)
    z = _through_flow(prior, z.flatten(1, 2))
    parts = []
    for start in range(0, len(images), chunk_size):
        with _precision(network, z.device):
            features = network.backbone(images[start : start + chunk_size].to(z.device))
            parts.append(network.decode(features, z[start : start + chunk_size]))
    return torch.cat(parts).unflatten(1, (len(chosen), len(steps)))


@torch.no_grad()
def freeze_axes(
    network: Any,
    images: Tensor,
    labels: Tensor,
    rater_valid: Tensor | None = None,
    num_samples: int = 16,
    seed: int = 0,
    *,
    num_classes: int | None = None,
    chunk_size: int = 8,
    progress: Progress | None = None,
) -> FrozenAxes:
    """How the samples' distance to the raters grows as axes are frozen at their mean (SPU-Net, Fig. 6).

    Which axis is the smallest is asked of each image's own prior. All n share the same draws, so that n alone makes the
    difference: nothing frozen is plain sampling, all frozen are N times the decoded mean.

    Args:
        network: see above.
        images: (B, C, *S).
        labels: (B, R, *S) class maps.
        rater_valid: (B, R) bool; None: all raters are there.
        num_samples: N.
        seed: of the draws.
        num_classes: as in :func:`~aleatoric.metrics.functional.empirical_wasserstein_distance`; the kernel is 1 - IoU.
        chunk_size: images at a time; it does not change the draws.
        progress: called with the number of images that were finished.
    """
    prior = _prior(network, images, chunk_size)
    base = base_of(prior)
    scales, directions = principal_axes(prior)
    with seeded(scales.device, seed):
        draws = base.sample(torch.Size([num_samples])).transpose(0, 1)  # (B, N, d)
    mean = base.mean.unsqueeze(1)
    along = (draws - mean) @ directions  # (B, N, d): coordinates in the axes
    rank = scales.argsort(dim=-1, stable=True).argsort(dim=-1)  # (B, d), 0 for the smallest
    dimensions = scales.shape[-1]
    # (B, d) masks of what stays free; the two orders share their first and their last member
    smallest = [rank >= n for n in range(dimensions + 1)]
    largest = [rank < dimensions - n for n in range(1, dimensions)]
    latents = [
        _through_flow(prior, mean + (along * free.unsqueeze(1)) @ directions.mT) for free in (*smallest, *largest)
    ]
    to_masks = LogitsToMasksd("masks", spatial_dims=images.ndim - 2)
    rows = []
    for start in range(0, len(images), chunk_size):
        part, device = slice(start, start + chunk_size), scales.device
        drawn, valid = labels[part].to(device), None if rater_valid is None else rater_valid[part].to(device)
        distances = []
        with _precision(network, device):
            features = network.backbone(images[part].to(device))
            for z in latents:
                masks = to_masks({"masks": network.decode(features, z[part])})["masks"]
                distances.append(empirical_wasserstein_distance(masks, drawn, valid, num_classes=num_classes))
        rows.append(torch.stack(distances, dim=1))  # (b, 2 d)
        if progress is not None:
            progress(len(drawn))
    table = torch.cat(rows)
    first, last = table[:, :1], table[:, dimensions : dimensions + 1]
    return FrozenAxes(table[:, : dimensions + 1], torch.cat([first, table[:, dimensions + 1 :], last], dim=1))


def _prior(network: Any, images: Tensor, chunk_size: int) -> Distribution:
    """What ``network.sample`` draws from, of all images: batch shape (B,)."""
    device = next(network.parameters()).device
    parts = []
    with _precision(network, device):
        for start in range(0, len(images), chunk_size):
            parts.append(network.prior.features(images[start : start + chunk_size].to(device)))
    return network.prior.density.drawn_from(torch.cat(parts))  # one density for all: draws do not depend on chunks


def _precision(network: Any, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=network.bf16)


def _through_flow(prior: Distribution, z: Tensor) -> Tensor:
    """Base coordinates (B, M, d) to what is decoded, (B, M, d)."""
    if not isinstance(prior, FlowDistribution):
        return z
    z = z.transpose(0, 1)  # the steps' parameters are (B, d)
    for step in prior.steps:
        z = step(z)
    return z.transpose(0, 1)
