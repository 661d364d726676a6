"""The intensities of a prepared data set, for images that were not prepared: what inference must do to them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, ScaleIntensityRanged, ScaleIntensityRangePercentilesd

from ..brats.transforms import NormalizeBratsd
from ..brats.volumes import WINDOW
from .reading import read_info

__all__ = ["intensity_rule", "intensity_transform"]

_BRATS = "brats"  # options["normalisation"] of such a set


def intensity_transform(dataset_dir: str | os.PathLike[str], keys: KeysCollection) -> MapTransform:
    """The MONAI transform that gives an image the intensities that a network saw while it trained on a data set.

    A set whose images were normalised one by one (``options["percentiles"]`` in dataset.json) asks for the same
    percentiles of each channel of the new image; one of BraTS for the normalisation inside the brain; any other for its
    intensity window.

    Args:
        dataset_dir: the prepared data set; only dataset.json is read.
        keys: of the image (C, *S).

    Raises:
        InputError: no such data set.
    """
    ((kind, (low, high)),) = intensity_rule(read_info(dataset_dir)).items()
    if kind == _BRATS:
        return NormalizeBratsd(keys)
    if kind == "percentiles":
        return ScaleIntensityRangePercentilesd(keys, low, high, 0.0, 1.0, clip=True, channel_wise=True)
    return ScaleIntensityRanged(keys, low, high, 0.0, 1.0, clip=True)


def intensity_rule(source: Mapping[str, Any] | MapTransform) -> dict[str, list[float]]:
    """What becomes 0 and 1, in plain values: ``{"window": [low, high]}`` or ``{"percentiles": [lower, upper]}``, or
    ``{"brats": [low, high]}`` in thousandths of a standard deviation of the brain.

    A model keeps the rule of the data that it was trained on, and inference compares it with its own.

    Args:
        source: dataset.json's content, or the transform of an inference config.

    Returns:
        An empty dict for a transform of any other kind, of which nothing is known.

    Example:
        >>> intensity_rule(ScaleIntensityRanged("image", -1000, 400, 0.0, 1.0))
        {'window': [-1000.0, 400.0]}
    """
    if isinstance(source, Mapping):
        if source["options"].get("normalisation") == _BRATS:
            return _rule(_BRATS, source["intensity_window"])
        percentiles = source["options"].get("percentiles")
        return _rule("percentiles", percentiles) if percentiles else _rule("window", source["intensity_window"])
    if isinstance(source, NormalizeBratsd):
        return _rule(_BRATS, WINDOW)
    scaler = getattr(source, "scaler", None)
    if isinstance(source, ScaleIntensityRangePercentilesd):
        return _rule("percentiles", (scaler.lower, scaler.upper))  # type: ignore[union-attr]
    if isinstance(source, ScaleIntensityRanged):
        return _rule("window", (scaler.a_min, scaler.a_max))  # type: ignore[union-attr]
    return {}


def _rule(kind: str, values: Sequence[float]) -> dict[str, list[float]]:
    return {kind: [float(value) for value in values]}
