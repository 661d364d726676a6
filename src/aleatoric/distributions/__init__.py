"""Distributions over latent spaces: they extend ``torch.distributions`` and hold no parameters."""

from . import normal_kl as _normal_kl  # registers the closed forms with torch.distributions.kl_divergence
from .flow import FlowDistribution, FlowDraw, PlanarTransform
from .logit_maps import LogitMapNormal
from .mixture import ReparameterizedMixture
from .normals import CholeskyNormal, LowRankNormal
from .spectrum import PrincipalAxes, base_of, principal_axes, principal_scales

__all__ = [
    "CholeskyNormal",
    "FlowDistribution",
    "FlowDraw",
    "LogitMapNormal",
    "LowRankNormal",
    "PlanarTransform",
    "PrincipalAxes",
    "ReparameterizedMixture",
    "base_of",
    "principal_axes",
    "principal_scales",
]

del _normal_kl
