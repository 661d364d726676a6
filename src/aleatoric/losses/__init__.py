"""Objectives: a likelihood plus weighted divergences; every term is a module that gives one value per image."""

from .divergences import KLDivergence, SinkhornDivergence
from .geco import GECOLoss, LagrangeMultiplier, WorstPixelsLikelihood
from .ladder import LadderKLDivergence, LevelKLDivergence, ResidualLikelihood, level_divergences
from .likelihoods import NegativeLogLikelihood
from .members import BestMemberCrossEntropy, MemberCrossEntropy, member_cross_entropy
from .monte_carlo import MonteCarloLikelihood, MonteCarloLikelihoodLoss
from .variational import DivergenceTerm, VariationalLoss

__all__ = [
    "BestMemberCrossEntropy",
    "DivergenceTerm",
    "GECOLoss",
    "KLDivergence",
    "LadderKLDivergence",
    "LagrangeMultiplier",
    "LevelKLDivergence",
    "MemberCrossEntropy",
    "MonteCarloLikelihood",
    "MonteCarloLikelihoodLoss",
    "NegativeLogLikelihood",
    "ResidualLikelihood",
    "SinkhornDivergence",
    "VariationalLoss",
    "WorstPixelsLikelihood",
    "level_divergences",
    "member_cross_entropy",
]
