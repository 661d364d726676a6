"""What every training pass does with the raters' labels: check them, draw one rater, encode for a posterior."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InputError

__all__ = ["check_label", "draw_rater", "encode_label", "present_raters"]


def check_label(image: Tensor, label: Tensor) -> None:
    """Raises InputError unless ``image`` is (B, C, *S) and ``label`` (B, R, *S)."""
    if label.dim() != image.dim() or label.shape[0] != image.shape[0] or label.shape[2:] != image.shape[2:]:
        raise InputError(
            f"label has shape {tuple(label.shape)} and image {tuple(image.shape)}, expected (B, R, *S) and "
            f"(B, C, *S): stack the raters' masks in the second axis of the label."
        )


def present_raters(label: Tensor, rater_valid: Tensor | None) -> Tensor:
    """(B, R) bool, all True where nobody says otherwise.

    Raises:
        InputError: ``rater_valid`` is not (B, R) as the label (B, R, *S) is, or there is no rater at all.
    """
    if rater_valid is None:
        rater_valid = torch.ones(label.shape[:2], dtype=torch.bool, device=label.device)
    if rater_valid.shape != label.shape[:2] or label.shape[1] == 0:
        raise InputError(
            f"rater_valid has shape {tuple(rater_valid.shape)} and label {tuple(label.shape)}, expected (B, R) and "
            f"(B, R, *S) with at least one rater: give a flag for each mask."
        )
    return rater_valid.bool()


def draw_rater(rater_valid: Tensor) -> Tensor:
    """One rater of each image, uniform among the valid: (B, R) -> (B,)."""
    # torch.multinomial would wait for the device
    return torch.rand(rater_valid.shape, device=rater_valid.device).masked_fill(~rater_valid, -1.0).argmax(1)


def encode_label(label: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Class maps (B, P, *S) -> (B, P, K, *S) around zero: Kohl et al. (2018) show the posterior the mask minus 0.5."""
    if classes == 1:
        return (label.to(dtype) - 0.5).unsqueeze(2)
    return F.one_hot(label.long(), classes).movedim(-1, 2).to(dtype) - 0.5
