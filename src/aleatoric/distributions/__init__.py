"""Distributions over latent spaces: they extend ``torch.distributions`` and hold no parameters."""

from . import normal_kl as _normal_kl  # registers the closed forms with torch.distributions.kl_divergence
from .flow import FlowDistribution, FlowDraw, PlanarTransform
from .mixture import ReparameterizedMixture
from .normals import CholeskyNormal, LowRankNormal

__all__ = [
    "CholeskyNormal",
    "FlowDistribution",
    "FlowDraw",
    "LowRankNormal",
    "PlanarTransform",
    "ReparameterizedMixture",
]

del _normal_kl
