"""Density heads: features -> a distribution over the latent space. A head holds parameters, a distribution none."""

from .base import ConditionalDensity, DensityHead, LinearDensity
from .flow import PlanarFlow
from .mixture import MixtureDensity
from .normals import DiagonalNormal, FullNormal, LowRankNormalDensity

__all__ = [
    "ConditionalDensity",
    "DensityHead",
    "DiagonalNormal",
    "FullNormal",
    "LinearDensity",
    "LowRankNormalDensity",
    "MixtureDensity",
    "PlanarFlow",
]
