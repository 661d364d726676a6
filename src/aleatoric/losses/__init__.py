"""Objectives: a likelihood plus weighted divergences; every term is a module that gives one value per image."""

from .divergences import KLDivergence, SinkhornDivergence
from .likelihoods import NegativeLogLikelihood
from .variational import DivergenceTerm, VariationalLoss

__all__ = ["DivergenceTerm", "KLDivergence", "NegativeLogLikelihood", "SinkhornDivergence", "VariationalLoss"]
