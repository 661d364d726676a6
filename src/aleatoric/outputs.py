"""What networks hand to losses: small named tuples, every field with its shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.distributions import Distribution, Independent

from .distributions import LogitMapNormal

__all__ = ["LadderOutput", "LogitMapOutput", "MemberOutput", "VariationalOutput"]


class VariationalOutput(NamedTuple):
    """Training output of a conditional latent-variable segmenter.

    B images, R raters, K class channels, d latent dimensions. P is the number of posteriors that were computed for an
    image: 1 where one rater was drawn, R where every rater's posterior is needed (SPU-Net).
    """

    logits: Tensor  # (B, K, *S)  decoded from the posterior draw of the chosen rater
    rater: Tensor  # (B,)  which of the R raters was reconstructed
    slot: Tensor  # (B,)  which of the P posteriors is that rater's
    prior: Distribution  # batch (B, 1), event (d,): p(z | x)
    posterior: Distribution  # batch (B, P), event (d,): q(z | x, y)
    posterior_draws: Tensor  # (B, P, d)  one draw of each posterior
    posterior_valid: Tensor  # (B, P)  False where the rater is missing


class LadderOutput(NamedTuple):
    """Training output of a segmenter with latent maps at several scales, coarsest first.

    Axes as in :class:`VariationalOutput`; a list has one entry per latent map, c channels of size s. The densities of a
    map are given the posterior's draws of the maps above it, so that their KL divergences sum to that of the whole.
    """

    logits: Tensor  # (B, K, *S)  decoded from the posterior draws of the chosen rater
    rater: Tensor  # (B,)  which of the R raters was reconstructed
    slot: Tensor  # (B,)  which of the P posteriors is that rater's
    priors: list[Independent]  # each batch (B, 1), event (c, *s): p(z_i | z_<i, x)
    posteriors: list[Independent]  # each batch (B, P), event (c, *s): q(z_i | z_<i, x, y)
    posterior_draws: list[Tensor]  # each (B, P, c, *s)
    posterior_valid: Tensor  # (B, P)  False where the rater is missing
    level_logits: Sequence[Tensor] = ()  # each (B, K, *S): PHiSeg's, summed up to each latent map; the last is logits


class MemberOutput(NamedTuple):
    """Training output of a segmenter without a density, which gives M fixed answers: ensemble members, heads, or one.

    Axes as in :class:`VariationalOutput`. All raters count, so none is chosen.
    """

    logits: Tensor  # (B, M, K, *S)
    rater_valid: Tensor  # (B, R)  False where the rater is missing


class LogitMapOutput(NamedTuple):
    """Training output of a segmenter whose logits have a joint law; axes as in :class:`VariationalOutput`."""

    distribution: LogitMapNormal  # batch (B,), event (K, *S): p(logits | x)
    rater_valid: Tensor  # (B, R)  False where the rater is missing
