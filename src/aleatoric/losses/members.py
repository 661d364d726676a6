"""Objectives of networks that give fixed answers: cross-entropy of every answer with every rater."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..outputs import MemberOutput
from .rater_pixels import crop_to, log_probabilities, mean_over_raters, one_hot_pixels

__all__ = ["BestMemberCrossEntropy", "MemberCrossEntropy", "member_cross_entropy"]


class MemberCrossEntropy(nn.Module):
    r"""Cross-entropy with every valid rater, SUMMED over the pixels and the members, averaged over the raters.

    Of a deterministic network (M = 1) that with one random rater, on average. As a sum over the members it trains each
    of an ensemble as if it were alone: its gradient does not know of the others, nor of how many there are.

    Args:
        pixel_mean: average over the pixels instead, as codes with a weight decay made for that do (DeepMedic's): for a
            fixed size of the image the same objective with another weight of the decay.
    """

    def __init__(self, pixel_mean: bool = False) -> None:
        super().__init__()
        self.pixel_mean = pixel_mean

    def forward(self, output: MemberOutput, label: Tensor) -> Tensor:
        """Output with logits (B, M, K, *S), label (B, R, *S) -> (B,) nats per image; 0 where no rater is valid."""
        nats = mean_over_raters(member_cross_entropy(output.logits, label).sum(1), output.rater_valid)
        return nats / output.logits.shape[3:].numel() if self.pixel_mean else nats


class BestMemberCrossEntropy(nn.Module):
    r"""Multiple-choice learning: each rater is answered for by the member that is nearest to that rater.

    .. math:: \frac1R \sum_r \Big[ (1 - \epsilon) \min_m c_{mr} + \frac{\epsilon}{M - 1} \sum_{m \ne m_r} c_{mr} \Big]

    with the cross-entropies :math:`c_{mr}` summed over the pixels and :math:`m_r` the nearest member. Rupprecht et al.,
    "Learning in an Uncertain World" (2017), eq. 4-5; :math:`\epsilon = 0` is Lee et al. (2015). The small share of the
    others keeps a member that nobody chose from never learning.

    Args:
        epsilon: share of the members that are not the nearest.

    Raises:
        InputError: a share outside [0, 1).
    """

    def __init__(self, epsilon: float = 0.05) -> None:
        super().__init__()
        if not 0 <= epsilon < 1:
            raise InputError(f"epsilon is {epsilon}, but a share in [0, 1) is expected: give e.g. 0.05.")
        self.epsilon = epsilon

    def forward(self, output: MemberOutput, label: Tensor) -> Tensor:
        """Output with logits (B, M, K, *S), label (B, R, *S) -> (B,) nats per image; 0 where no rater is valid."""
        costs = member_cross_entropy(output.logits, label)  # (B, M, R)
        best = costs.amin(1)  # (B, R)
        others = costs.shape[1] - 1
        if self.epsilon > 0 and others > 0:
            best = (1 - self.epsilon) * best + self.epsilon / others * (costs.sum(1) - best)
        return mean_over_raters(best, output.rater_valid)


def member_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of each member with each rater, summed over the pixels.

    Args:
        logits: (B, M, K, *S); K = 1 is a Bernoulli's logit.
        label: (B, R, *L) class maps; where they are larger than the logits (unpadded convolutions) their centre counts.

    Returns:
        (B, M, R), nats.

    Raises:
        InputError: as :func:`.rater_pixels.crop_to`.
    """
    one_hot = one_hot_pixels(crop_to(label, logits.shape[3:]), logits.shape[2])  # (B, C * pixels, R)
    with torch.autocast(logits.device.type, enabled=False):
        # all terms of a sum have one sign: nothing cancels, however sure the network is
        return -torch.matmul(log_probabilities(logits.float()), one_hot)
