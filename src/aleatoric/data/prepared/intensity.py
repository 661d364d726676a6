"""The intensities of a prepared data set, for images that were not prepared: what inference must do to them."""

from __future__ import annotations

import os

from monai.config import KeysCollection
from monai.transforms import MapTransform, ScaleIntensityRanged, ScaleIntensityRangePercentilesd

from .reading import read_info

__all__ = ["intensity_transform"]


def intensity_transform(dataset_dir: str | os.PathLike[str], keys: KeysCollection) -> MapTransform:
    """The MONAI transform that gives an image the intensities that a network saw while it trained on a data set.

    A set whose images were normalised one by one (``options["percentiles"]`` in dataset.json) asks for the same
    percentiles of each channel of the new image; any other for its intensity window.

    Args:
        dataset_dir: the prepared data set; only dataset.json is read.
        keys: of the image (C, *S).

    Raises:
        InputError: no such data set.
    """
    info = read_info(dataset_dir)
    percentiles = info["options"].get("percentiles")
    if percentiles:
        lower, upper = percentiles
        return ScaleIntensityRangePercentilesd(keys, lower, upper, 0.0, 1.0, clip=True, channel_wise=True)
    low, high = info["intensity_window"]
    return ScaleIntensityRanged(keys, low, high, 0.0, 1.0, clip=True)
