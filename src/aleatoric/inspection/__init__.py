"""``aleatoric inspect``: the pictures that a trained bundle's latent space and samples are judged by."""

from __future__ import annotations

from .command import add_arguments, run
from .rebuild import load_weights, rebuild_network

__all__ = ["add_arguments", "load_weights", "rebuild_network", "run"]
