"""How a metric learns which raters are missing, through handlers that pass a prediction and a label and nothing else.

MONAI's metric handlers call ``metric(y_pred, y)``. So a missing rater is written into the label itself: all pixels of
that rater's map are :data:`MISSING`. :class:`MarkMissingRatersd` does it as the last postprocessing transform, batched
or decollated, and ``from_engine(["pred", "label"])`` stays the output transform.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..errors import InputError
from ._overlap import check_rater_valid, class_maps, plain

__all__ = ["MISSING", "MarkMissingRatersd", "mark_missing", "split_missing"]

MISSING = 255  # no class of a uint8 map, and what segmentation data sets use for "to be ignored"


def mark_missing(labels: torch.Tensor, rater_valid: torch.Tensor) -> torch.Tensor:
    """Labels whose missing raters' maps are :data:`MISSING` throughout.

    Args:
        labels: (B, R, *S) or (R, *S) class maps.
        rater_valid: (B, R) or (R,) bool.

    Returns:
        As ``labels``; bool and int8 become uint8, which can hold the mark, unsigned types above uint8 int64.

    Raises:
        InputError: ``rater_valid`` does not name the labels' raters.
    """
    labels, rater_valid = class_maps(labels, "labels"), plain(rater_valid, "rater_valid")
    if labels.shape[: rater_valid.ndim] != rater_valid.shape or rater_valid.ndim not in (1, 2):
        raise InputError(
            f"rater_valid has shape {tuple(rater_valid.shape)} where labels have {tuple(labels.shape)}; "
            "pass (B, R) with (B, R, *S), or (R,) with (R, *S)."
        )
    if labels.dtype in (torch.bool, torch.int8):
        labels = labels.to(torch.uint8)
    missing = ~rater_valid.to(device=labels.device, dtype=torch.bool)
    return labels.masked_fill(missing.view(*missing.shape, *[1] * (labels.ndim - missing.ndim)), MISSING)


def split_missing(
    labels: torch.Tensor, rater_valid: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The labels (B, R, *S) and their ``rater_valid`` (B, R): False where a map is :data:`MISSING` throughout.

    Args:
        labels: class maps.
        rater_valid: (B, R) bool, raters who are missing besides.
    """
    labels = class_maps(labels, "labels")
    given = None if rater_valid is None else check_rater_valid(rater_valid, labels)
    if labels.dtype in (torch.bool, torch.int8) or labels.ndim < 3:
        return labels, given
    marked = ~(labels == MISSING).flatten(2).all(-1)
    return labels, marked if given is None else marked & given


class MarkMissingRatersd(MapTransform):
    """Write missing raters into the labels, :func:`mark_missing`, for the metric handlers.

    Args:
        keys: the labels.
        rater_valid_key: the (R,) or (B, R) bool tensor; where a case lacks it, all of its raters are there.
        allow_missing_keys: as in MONAI.
    """

    def __init__(
        self, keys: KeysCollection = "label", rater_valid_key: str = "rater_valid", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.rater_valid_key = rater_valid_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if self.rater_valid_key in result:
            for key in self.key_iterator(result):
                result[key] = mark_missing(torch.as_tensor(result[key]), torch.as_tensor(result[self.rater_valid_key]))
        return result
