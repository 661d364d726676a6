"""LIDC's real contours over a simulated thorax."""

from __future__ import annotations

from .command import prepare_phantom

__all__ = ["prepare_phantom"]
