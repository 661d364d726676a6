"""What an evaluation leaves behind: metrics.json, per_case.csv, cases.npz and a picture, each with what judges it."""

from __future__ import annotations

from .pictures import DrawSamplesd
from .writer import EvaluationWriter

__all__ = ["DrawSamplesd", "EvaluationWriter"]
