"""Lengths and areas in millimetres: what the caller says of a pixel's size, checked and spread over the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import InputError

__all__ = ["PixelSize", "Spacing", "check_pixel_size", "check_spacing", "own_options"]

Spacing = Sequence[float] | torch.Tensor
PixelSize = float | torch.Tensor


def check_spacing(spacing: Spacing, shape: Sequence[int]) -> torch.Tensor:
    """(B, dims) float64 on the CPU, mm between neighbouring pixels of masks of ``shape`` (B, N, *S)."""
    images, dims = shape[0], len(shape) - 2
    step = torch.as_tensor(spacing, dtype=torch.float64, device="cpu")
    if step.shape not in ((dims,), (images, dims)) or not _positive(step):
        raise InputError(
            f"spacing is {_shown(step)} where masks have {dims} spatial axes; pass one positive number of mm per axis, "
            f"({dims},) for all images or ({images}, {dims})."
        )
    return step.expand(images, dims)


def check_pixel_size(pixel_size: PixelSize, counts: torch.Tensor) -> torch.Tensor:
    """(B,) mm^2 of a pixel or mm^3 of a voxel, of the type and on the device of ``counts`` (B, ...)."""
    size, images = torch.as_tensor(pixel_size, dtype=counts.dtype, device=counts.device), len(counts)
    if size.shape not in ((), (images,)) or not _positive(size):
        raise InputError(
            f"pixel_size is {_shown(size)}; pass a positive area in mm^2 or volume in mm^3, one number or ({images},)."
        )
    return size.expand(images)


def own_options(options: Mapping[str, Any], number: int) -> dict[str, Any]:
    """What of the keyword arguments of a list of cases is that of one case: (1, ...) of (B, ...), or what all share.

    One ``pixel_size`` is shared, and a ``spacing`` of one number per axis.
    """
    own = {}
    for name, value in options.items():
        shared = value is None or (name == "pixel_size" and np.ndim(value) == 0)
        if shared or (name == "spacing" and np.ndim(value[0]) == 0):
            own[name] = value
        else:
            own[name] = torch.as_tensor(value[number])[None]
    return own


def _positive(values: torch.Tensor) -> bool:
    return bool((values.isfinite() & (values > 0)).all())


def _shown(values: torch.Tensor) -> str:
    return str(values.tolist()) if values.numel() < 9 else f"a tensor of shape {tuple(values.shape)}"
