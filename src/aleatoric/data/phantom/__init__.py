"""LIDC's real contours over a simulated thorax, and simulated brains."""

from __future__ import annotations

from .brain import prepare_brain_phantom
from .command import prepare_phantom

__all__ = ["prepare_brain_phantom", "prepare_phantom"]
