"""Brightness and gamma augmentation of a whole batch on its device."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from ..errors import InputError
from .spatial import to_device

__all__ = ["BatchRandIntensityd", "batch_intensity"]


def batch_intensity(image: Tensor, brightness: Tensor, gamma: Tensor) -> Tensor:
    """clamp(brightness * image ** gamma, 0, 1), one pair of factors per image, the same for all its channels.

    Args:
        image: (B, C, *S) in [0, 1].
        brightness: (B,).
        gamma: (B,), positive; above 1 darkens.

    Returns:
        (B, C, *S) in [0, 1].

    Example:
        >>> import torch
        >>> batch_intensity(torch.tensor([[[0.5]]]), torch.tensor([2.0]), torch.tensor([2.0])).item()
        0.5
    """
    shape = (-1, *[1] * (image.ndim - 1))
    return image.pow(gamma.view(shape)).mul(brightness.view(shape)).clamp(0.0, 1.0)


class BatchRandIntensityd(Randomizable, MapTransform):
    """Random brightness and gamma of each image of a batch dict (cSAE, appendix B: 0.8-1.2 and 0.5-1.5).

    Args:
        keys: entries (B, C, *S) in [0, 1]; all get the same factors.
        prob: probability that an image is changed; the others remain as they are.
        brightness: (low, high) of the uniform factor.
        gamma: (low, high) of the uniform exponent, positive.
        allow_missing_keys: skip keys that the batch lacks.

    Raises:
        InputError: a range that is not 0 < low <= high.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        prob: float = 1.0,
        brightness: tuple[float, float] = (0.8, 1.2),
        gamma: tuple[float, float] = (0.5, 1.5),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        for name, (low, high) in (("brightness", brightness), ("gamma", gamma)):
            if not 0 < low <= high:
                raise InputError(f"{name}=({low}, {high}) found, 0 < low <= high expected; correct it.")
        self.prob = float(prob)
        self.bounds = np.array([brightness, gamma], dtype=np.float64)  # (2, 2): rows brightness, gamma

    def randomize(self, batch_size: int) -> np.ndarray:  # type: ignore[override]
        """Draw (2, B) float32 factors, brightness and gamma; 1 for images that are not changed."""
        selected = self.R.random_sample(batch_size) < self.prob
        unit = self.R.random_sample((2, batch_size))
        values = self.bounds[:, :1] + unit * (self.bounds[:, 1:] - self.bounds[:, :1])
        return np.where(selected, values, 1.0).astype(np.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        batch = dict(data)
        first = batch[self.first_key(batch)]
        brightness, gamma = to_device(self.randomize(first.shape[0]), first.device)
        for key in self.key_iterator(batch):
            batch[key] = batch_intensity(batch[key], brightness, gamma)
        return batch
