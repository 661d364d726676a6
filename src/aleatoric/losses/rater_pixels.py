"""What objectives do that compare every map with every rater's label."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError

__all__ = ["crop_to", "log_probabilities", "mean_over_raters", "one_hot_pixels"]


def crop_to(label: Tensor, shape: torch.Size) -> Tensor:
    """The centre of a label (B, R, *S) that has the logits' ``shape``, since unpadded convolutions lose the margin.

    Raises:
        InputError: the label is smaller, or has an odd number of pixels more.
    """
    more = [have - want for have, want in zip(label.shape[2:], shape)]
    if label.dim() != 2 + len(shape) or min(more) < 0 or any(n % 2 for n in more):
        raise InputError(
            f"label has shape {tuple(label.shape)} and the logits {tuple(shape)} pixels, expected as many or an even "
            f"number more: give label and image of one size."
        )
    for axis, n in enumerate(more, start=2):
        label = label.narrow(axis, n // 2, label.shape[axis] - n)
    return label


def one_hot_pixels(label: Tensor, classes: int) -> Tensor:
    """(B, R, *S) -> (B, C * pixels, R) float32, C = classes, 2 for one logit; a value that is no class is 0 in all."""
    index = torch.arange(max(classes, 2), device=label.device)
    return (label.flatten(2).unsqueeze(2) == index.unsqueeze(1)).flatten(2).float().mT


def log_probabilities(maps: Tensor) -> Tensor:
    """Logits (M, B, K, *S) -> log-probability of each class at each pixel, (M, B, C * pixels), C as there."""
    if maps.shape[2] == 1:
        return torch.cat([F.logsigmoid(-maps), F.logsigmoid(maps)], dim=2).flatten(2)
    return F.log_softmax(maps, dim=2).flatten(2)


def mean_over_raters(values: Tensor, rater_valid: Tensor) -> Tensor:
    """(B, R) -> (B,), over the raters that are there; 0 where nobody is."""
    return torch.where(rater_valid, values, 0.0).sum(1) / rater_valid.sum(1).clamp(min=1)
