"""Parts of networks: backbones, encoders, density heads, heads."""

from .backbones import DropoutUNetBackbone, UNetBackbone
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
from .ladder import HierarchicalCore, NormalMap
from .logit_maps import ForegroundMask, LogitMapDensity
from .pathways import Pathway, PreActivationConvolution
from .phiseg_ladder import PHiSegLadder, PHiSegLikelihood
from .residual import ResidualBlock
from .residual_encoders import ConvNeXtEncoder, ResNetEncoder

__all__ = [
    "ConditionalDensity",
    "ConvNeXtEncoder",
    "ConvolutionBlock",
    "DensityHead",
    "DiagonalNormal",
    "DropoutUNetBackbone",
    "Encoder",
    "FeatureCombiner",
    "ForegroundMask",
    "FullNormal",
    "HierarchicalCore",
    "LinearDensity",
    "LogitMapDensity",
    "LowRankNormalDensity",
    "MixtureDensity",
    "NormalMap",
    "PHiSegLadder",
    "PHiSegLikelihood",
    "Pathway",
    "PlanarFlow",
    "PreActivationConvolution",
    "ResidualBlock",
    "ResNetEncoder",
    "UNetBackbone",
]
