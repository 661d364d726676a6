"""How a latent density spreads: the axes of its covariance and the standard deviations along them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, Normal

from .flow import FlowDistribution

__all__ = ["PrincipalAxes", "base_of", "principal_axes", "principal_scales"]


class PrincipalAxes(NamedTuple):
    """Orthonormal directions in which the coordinates of a draw are uncorrelated."""

    scales: Tensor  # (..., d)  standard deviation along each
    axes: Tensor  # (..., d, d)  column j is the j-th direction


def base_of(distribution: Distribution) -> Distribution:
    """The density that a flow transforms; any other density is its own base."""
    return distribution.base_dist if isinstance(distribution, FlowDistribution) else distribution


def principal_axes(distribution: Distribution) -> PrincipalAxes:
    """Principal axes of a density over vectors; of a flow, those of its base.

    Of an axis-aligned Normal they are the coordinates' own axes in their own order, of any other density the
    eigenvectors of its covariance, the largest eigenvalue first. The eigenvalues are read on the host: not for every
    step of a training.

    Args:
        distribution: batch shape (...), event shape (d,), with a covariance.
    """
    base = base_of(distribution)
    if isinstance(base, Independent) and isinstance(base.base_dist, Normal):
        scales = base.stddev
        return PrincipalAxes(scales, torch.eye(scales.shape[-1]).to(scales).expand(*scales.shape, -1))
    with torch.autocast(base.mean.device.type, enabled=False):
        values, vectors = torch.linalg.eigh(_covariance(base))  # ascending
    return PrincipalAxes(values.clamp(min=0).sqrt().flip(-1), vectors.flip(-1))


def principal_scales(distribution: Distribution) -> Tensor:
    """Singular values of the density (SPU-Net, section III; cSAE, eq. 20): (..., d), see :func:`principal_axes`."""
    return principal_axes(distribution).scales


def _covariance(distribution: Distribution) -> Tensor:
    # (..., d, d)
    if isinstance(distribution, MixtureSameFamily):
        weights = distribution.mixture_distribution.probs  # (..., N)
        components = distribution.component_distribution
        means = components.mean - distribution.mean.unsqueeze(-2)  # (..., N, d)
        between = torch.einsum("...n,...ni,...nj->...ij", weights, means, means)
        return between + (weights[..., None, None] * _covariance(components)).sum(-3)
    if hasattr(distribution, "covariance_matrix"):
        return distribution.covariance_matrix
    return torch.diag_embed(distribution.variance)
