"""What a latent space does: how it spreads, what its axes change, how doubt and disagreement go together.

Pure functions of a trained network, and a handler that follows the prior's spread through a training.
"""

from __future__ import annotations

from .entropy import Correlation, pearson, pixel_entropy, rater_entropy
from .handlers import LatentLogger, latent_curves
from .latents import FrozenAxes, LatentSummary, freeze_axes, interpolate_axes, latent_summary

__all__ = [
    "Correlation",
    "FrozenAxes",
    "LatentLogger",
    "LatentSummary",
    "freeze_axes",
    "interpolate_axes",
    "latent_curves",
    "latent_summary",
    "pearson",
    "pixel_entropy",
    "rater_entropy",
]
