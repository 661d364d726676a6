"""Mirrors and quarter turns of a whole batch on its device: no interpolation, so that every value stays what it is.

That is what windows of volumes need whose zeros mean air: the interpolating
:class:`~aleatoric.transforms.BatchRandAffined` is for volumes too, and softens the brain's edge.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from ..errors import InputError
from .spatial import to_device

__all__ = ["BatchRandFlipd", "BatchRandRotate90d"]


class BatchRandFlipd(Randomizable, MapTransform):
    """Random mirror of each image of a batch dict: the batched form of ``monai.transforms.RandFlipd``.

    Args:
        keys: entries (B, C, *S), C channels or R raters; all share B and S.
        prob: probability that an image is mirrored.
        spatial_axis: the axis that is turned round, 0 is the first spatial one.
        allow_missing_keys: skip keys that the batch lacks.

    Raises:
        InputError: the batch has no such axis.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        prob: float = 0.5,
        spatial_axis: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.prob = float(prob)
        self.spatial_axis = int(spatial_axis)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw for each image and mirror the chosen ones."""
        batch = dict(data)
        first = batch[self.first_key(batch)]
        chosen = to_device(self.R.random_sample(len(first)) < self.prob, first.device)
        for key in self.key_iterator(batch):
            (axis,) = _axes(batch[key], self.spatial_axis)
            batch[key] = _where(chosen, batch[key].flip(axis), batch[key])
        return batch


class BatchRandRotate90d(Randomizable, MapTransform):
    """Random quarter turns of each image of a batch dict: the batched form of ``monai.transforms.RandRotate90d``.

    Args:
        keys: entries (B, C, *S), C channels or R raters; all share B and S.
        prob: probability that an image is turned, by 1 to ``max_k`` quarter turns, all equally likely.
        max_k: 1 to 3.
        spatial_axes: the plane, turned from the first axis to the second; both of one length.
        allow_missing_keys: skip keys that the batch lacks.

    Raises:
        InputError: ``max_k`` that is none; the batch has no such axes, or the plane is no square.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        prob: float = 0.5,
        max_k: int = 3,
        spatial_axes: tuple[int, int] = (0, 1),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if max_k not in (1, 2, 3):
            raise InputError(f"max_k {max_k} found, 1 to 3 quarter turns expected; correct it.")
        self.prob = float(prob)
        self.max_k = int(max_k)
        self.spatial_axes = (int(spatial_axes[0]), int(spatial_axes[1]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw for each image and turn the chosen ones."""
        batch = dict(data)
        first = batch[self.first_key(batch)]
        turned = self.R.random_sample(len(first)) < self.prob
        turns = (self.R.randint(1, self.max_k + 1, len(first)) * turned).astype("int64")
        quarter, half = to_device(turns % 2 == 1, first.device), to_device(turns >= 2, first.device)
        for key in self.key_iterator(batch):
            axes = _axes(batch[key], *self.spatial_axes)
            if batch[key].shape[axes[0]] != batch[key].shape[axes[1]]:
                raise InputError(
                    f"{key} of shape {tuple(batch[key].shape)} found, a square in the plane of the axes "
                    f"{self.spatial_axes} expected; choose another plane or window."
                )
            once = _where(quarter, batch[key].rot90(1, axes), batch[key])
            batch[key] = _where(half, once.flip(axes), once)
        return batch


def _axes(image: Tensor, *spatial: int) -> list[int]:
    """Axes of the tensor."""
    for axis in spatial:
        if not 0 <= axis < image.ndim - 2:
            raise InputError(f"spatial axis {axis} found, 0 to {image.ndim - 3} expected for the batch; correct it.")
    return [2 + axis for axis in spatial]


def _where(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, *[1] * (no.ndim - 1)), yes, no)
