"""Objectives: a likelihood plus weighted divergences; every term is a module that gives one value per image."""

from .divergences import KLDivergence, SinkhornDivergence
from .geco import GECOLoss, LagrangeMultiplier, WorstPixelsLikelihood
from .ladder import LadderKLDivergence, LevelKLDivergence
from .likelihoods import NegativeLogLikelihood
from .variational import DivergenceTerm, VariationalLoss

__all__ = [
    "DivergenceTerm",
    "GECOLoss",
    "KLDivergence",
    "LadderKLDivergence",
    "LagrangeMultiplier",
    "LevelKLDivergence",
    "NegativeLogLikelihood",
    "SinkhornDivergence",
    "VariationalLoss",
    "WorstPixelsLikelihood",
]
