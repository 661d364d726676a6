"""What an image must be before a network sees it, and which part of it the network is to see."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, InvertibleTransform, MapTransform

from ..errors import InputError

__all__ = ["CheckImaged", "CropAroundPointd"]


class CheckImaged(MapTransform):
    """Refuse, in one sentence, an image that the network would answer with nonsense.

    Args:
        keys: images (C, *S).
        channels: C that the network was built for.
        allow_missing_keys: skip keys that the data lack.

    Raises:
        InputError: another number of channels; NaN or infinite values.
    """

    def __init__(self, keys: KeysCollection = "image", channels: int = 1, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key])
            name = result[key].meta.get("filename_or_obj", key) if isinstance(result[key], MetaTensor) else key
            if image.shape[0] != self.channels:
                raise InputError(
                    f"{name} has {image.shape[0]} channels, the network expects {self.channels}: choose the channels "
                    f"that it was trained with."
                )
            bad = int((~torch.isfinite(image)).sum())
            if bad:
                raise InputError(
                    f"{name} has {bad} values that are NaN or infinite, finite intensities are expected: repair them."
                )
        return result


class CropAroundPointd(MapTransform, InvertibleTransform):
    """Cut a box around a point of the patient, given in mm; its inverse pads back to the whole image.

    Args:
        keys: images (C, *S) with an affine (MetaTensor).
        center: the point, three (2D: two) coordinates in mm.
        roi_size: voxels of the box along the image's axes; it is moved to lie inside the image, and cut short where
            the image is smaller. An image of two dimensions uses the first two numbers.
        space: ``"LPS"``, as DICOM and 3D Slicer's DICOM panels give coordinates, or ``"RAS"`` as NIfTI does.
        allow_missing_keys: skip keys that the data lack.

    Raises:
        InputError: the point lies outside the image; it or the box has too few dimensions.
    """

    def __init__(
        self,
        keys: KeysCollection,
        center: Sequence[float],
        roi_size: Sequence[int],
        space: str = "LPS",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if space not in ("LPS", "RAS"):
            raise InputError(f"space is {space!r}: give 'LPS' (as DICOM) or 'RAS' (as NIfTI).")
        self.center = [float(v) for v in center]
        self.roi_size = [int(v) for v in roi_size]
        self.space = space
        self.cropper = Crop()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            shape = image.shape[1:]
            if min(len(self.center), len(self.roi_size)) < len(shape):
                raise InputError(
                    f"center has {len(self.center)} coordinates and roi_size {len(self.roi_size)} numbers, "
                    f"{len(shape)} of each are expected for an image of {tuple(shape)} voxels: give as many."
                )
            index = self._index(image, len(shape))
            if any(not -0.5 <= i < n - 0.5 for i, n in zip(index, shape)):
                raise InputError(
                    f"the point {self.center} ({self.space}, mm) is voxel {[round(float(i), 1) for i in index]} of an "
                    f"image of {tuple(shape)} voxels: give a point inside the image."
                )
            low = [
                int(np.clip(round(float(i)) - r // 2, 0, max(n - r, 0))) for i, r, n in zip(index, self.roi_size, shape)
            ]
            slices = [slice(a, min(a + r, n)) for a, r, n in zip(low, self.roi_size, shape)]
            result[key] = self.cropper(image, tuple(slices))
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Zero-pad to the size before the crop."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.cropper.inverse(result[key])
        return result

    def _index(self, image: Any, dims: int) -> np.ndarray:
        if not isinstance(image, MetaTensor):
            raise InputError("the image has no affine, so a point in mm means nothing: load it with LoadImaged.")
        world = np.array([*self.center, *[0.0] * (3 - len(self.center)), 1.0])
        if self.space == "LPS":
            world[:2] *= -1.0
        return (np.linalg.inv(np.asarray(image.affine, dtype=float)) @ world)[:dims]
