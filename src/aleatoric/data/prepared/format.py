"""What a prepared data set consists of, and whether patches fit into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError

__all__ = ["ARRAYS", "CASE_COLUMNS", "FORMAT_VERSION", "check_patches", "layout"]

FORMAT_VERSION = 1
ARRAYS = ("images.npy", "labels.npy", "rater_valid.npy")
CASE_COLUMNS = ("case", "patient", "slice", "raters", "fold")


def layout(info: Mapping[str, Any], count: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of each array of ``count`` patches, for the dataset.json ``info``."""
    size, raters = tuple(info["patch_size"]), int(info["raters"])
    return {
        "images": ((count, len(info["channels"]), *size), np.dtype(info["image_dtype"])),
        "labels": ((count, raters, *size), np.dtype("uint8")),
        "rater_valid": ((count, raters), np.dtype("bool")),
    }


def check_patches(
    info: Mapping[str, Any],
    unit: str,
    images: np.ndarray,
    labels: np.ndarray,
    rater_valid: np.ndarray,
    cases: Sequence[Mapping[str, Any]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three arrays in the types that are stored.

    Args:
        info: what dataset.json says of the set.
        unit: named in the errors.
        images, labels, rater_valid, cases: see :meth:`.writer.PreparedDatasetWriter.write`.

    Raises:
        InputError: wrong shapes, rows without a name, NaN, labels outside the classes, values that do not fit.
    """
    arrays = {"images": np.asarray(images), "labels": np.asarray(labels), "rater_valid": np.asarray(rater_valid)}
    count = len(cases)
    expected = layout(info, count)
    for key, array in arrays.items():
        if array.shape != expected[key][0]:
            raise InputError(
                f"{unit}: {key} of shape {array.shape} found, {expected[key][0]} expected; check the preparation."
            )
    images, labels, rater_valid = arrays.values()
    for row in cases:
        missing = [key for key in ("case", "patient", "slice") if key not in row]
        if missing:
            raise InputError(f"{unit}: a case without {' and '.join(missing)} found; name them for every patch.")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        bad = int(np.flatnonzero(~np.isfinite(images).reshape(count, -1).all(axis=1))[0])
        raise InputError(
            f"{unit}: NaN or infinity found in the image of case {cases[bad]['case']}, finite values expected; "
            "repair or leave out the image."
        )
    dtype = expected["images"][1]
    if images.size and dtype.kind == "i":
        low, high, fits = images.min(), images.max(), np.iinfo(dtype)
        if low < fits.min or high > fits.max:
            raise InputError(f"{unit}: intensities {low}..{high} do not fit into {dtype}; use image_dtype float32.")
    if images.dtype.kind == "f" and dtype.kind == "i":
        images = np.rint(images)
    classes = info["classes"]
    if labels.size and (labels.min() < 0 or labels.max() >= len(classes)):
        raise InputError(
            f"{unit}: label values {labels.min()}..{labels.max()} found, 0..{len(classes) - 1} expected "
            f"({', '.join(classes)}); check the labels."
        )
    return images.astype(dtype), labels.astype(np.uint8), rater_valid.astype(bool)
