"""Objectives of networks that give fixed answers: cross-entropy of every answer with every rater."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..outputs import MemberOutput

__all__ = ["BestMemberCrossEntropy", "MemberCrossEntropy", "member_cross_entropy"]


class MemberCrossEntropy(nn.Module):
    r"""Cross-entropy with every valid rater, SUMMED over the pixels and the members, averaged over the raters.

    Of a deterministic network (M = 1) that with one random rater, on average. As a sum over the members it trains each
    of an ensemble as if it were alone: its gradient does not know of the others, nor of how many there are.
    """

    def forward(self, output: MemberOutput, label: Tensor) -> Tensor:
        """Output with logits (B, M, K, *S), label (B, R, *S) -> (B,) nats per image; 0 where no rater is valid."""
        return _mean_over_raters(member_cross_entropy(output.logits, label).sum(1), output.rater_valid)


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
        return _mean_over_raters(best, output.rater_valid)


def member_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of each member with each rater, summed over the pixels.

    Args:
        logits: (B, M, K, *S); K = 1 is a Bernoulli's logit.
        label: (B, R, *L) class maps; where they are larger than the logits (unpadded convolutions) their centre counts.

    Returns:
        (B, M, R), nats.
    """
    for axis, side in enumerate(logits.shape[3:], 2):
        label = label.narrow(axis, (label.shape[axis] - side) // 2, side)
    label = label.flatten(2)  # (B, R, P)
    scores = logits.flatten(3).float()  # (B, M, K, P)
    if scores.shape[2] == 1:
        log_probs = torch.cat([F.logsigmoid(-scores), F.logsigmoid(scores)], dim=2)
    else:
        log_probs = scores.log_softmax(2)
    # terms of one sign: nothing cancels, however sure the network is
    classes = range(log_probs.shape[2])
    return -sum(torch.einsum("bmp,brp->bmr", log_probs[:, :, c], (label == c).float()) for c in classes)  # type: ignore


def _mean_over_raters(values: Tensor, rater_valid: Tensor) -> Tensor:
    # (B, R) -> (B,); 0 where nobody is valid
    weight = rater_valid.to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1.0)
