"""What areas and distances of an evaluation are in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["area_unit", "has_unit", "length_unit"]


def area_unit(record: Mapping[str, Any]) -> str:
    """Of areas, or of volumes."""
    volume = len(record["dataset"].get("patch_size") or []) == 3
    if record.get("spacing"):
        return "mm³" if volume else "mm²"
    return "voxels" if volume else "pixels"


def length_unit(record: Mapping[str, Any]) -> str:
    """Of distances."""
    return "mm" if record.get("spacing") else area_unit(record)


def has_unit(name: str) -> bool:
    """Whether a figure is in pixels, or in mm where the spacing is given."""
    areas = name.startswith("area_") and not name.startswith(("area_coverage", "area_calibration"))
    return areas or name.startswith("ewd_hausdorff")
