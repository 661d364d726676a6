"""Reconstruction terms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..outputs import LadderOutput, VariationalOutput

__all__ = ["NegativeLogLikelihood", "pixel_cross_entropy"]


class NegativeLogLikelihood(nn.Module):
    r""":math:`-\log p(y_k | x, z)`, the cross-entropy with the chosen rater k's label, SUMMED over the pixels.

    A mean over the pixels would weigh the divergences 16,384 times higher on a 128x128 patch, and the KL divergence
    would collapse to zero. Bernoulli for K = 1 (a logit), categorical for K > 1. Kohl et al. 2018, eq. 4.
    """

    def forward(self, output: VariationalOutput | LadderOutput, label: Tensor) -> Tensor:
        """Output with logits (B, K, *S), label (B, R, *S) -> (B,) nats per image; 0 where no rater is valid."""
        index = torch.arange(label.shape[0], device=label.device)
        return pixel_cross_entropy(output, label).flatten(1).sum(1) * output.posterior_valid[index, output.slot]


def pixel_cross_entropy(output: VariationalOutput | LadderOutput, label: Tensor) -> Tensor:
    """Cross-entropy of each pixel with the chosen rater's label (B, R, *S) -> (B, *S), nats."""
    index = torch.arange(label.shape[0], device=label.device)
    target = label[index, output.rater]  # (B, *S)
    if output.logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(output.logits[:, 0], target.to(output.logits), reduction="none")
    return F.cross_entropy(output.logits, target.long(), reduction="none")
