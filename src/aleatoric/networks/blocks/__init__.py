"""Parts of networks: backbones, encoders, density heads, heads."""

from .backbones import UNetBackbone
from .densities import (
    ConditionalDensity,
    DensityHead,
    DiagonalNormal,
    FullNormal,
    LinearDensity,
    LowRankNormalDensity,
    MixtureDensity,
    PlanarFlow,
)
from .encoders import ConvolutionBlock, Encoder
from .heads import FeatureCombiner

__all__ = [
    "ConditionalDensity",
    "ConvolutionBlock",
    "DensityHead",
    "DiagonalNormal",
    "Encoder",
    "FeatureCombiner",
    "FullNormal",
    "LinearDensity",
    "LowRankNormalDensity",
    "MixtureDensity",
    "PlanarFlow",
    "UNetBackbone",
]
