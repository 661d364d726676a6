r"""Closed forms for ``kl_divergence`` between Normals of different families.

:math:`KL[p \| q] = \frac12 (\ln\det\Sigma_q - \ln\det\Sigma_p + \sum_j |a_j|_q^2 + |\mu_p - \mu_q|_q^2 - d)` with
:math:`|x|_q^2 = x^T \Sigma_q^{-1} x` and :math:`a_j` the columns of any root :math:`A A^T = \Sigma_p`. The root of a
diagonal or low-rank covariance has more than d columns of d numbers: made for latent spaces, not for images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, register_kl

from .normals import LowRankNormal

__all__: list[str] = []


@register_kl(LowRankNormal, LowRankNormal)
@register_kl(LowRankNormal, MultivariateNormal)
@register_kl(MultivariateNormal, LowRankNormal)
@register_kl(LowRankNormal, Independent)
@register_kl(Independent, LowRankNormal)
@register_kl(MultivariateNormal, Independent)
@register_kl(Independent, MultivariateNormal)
def _kl_normals(p: Distribution, q: Distribution) -> Tensor:
    for distribution in (p, q):
        if isinstance(distribution, Independent) and not (
            isinstance(distribution.base_dist, Normal) and len(distribution.event_shape) == 1
        ):
            raise NotImplementedError(f"{distribution} is no Normal over vectors")
    with torch.autocast(p.mean.device.type, enabled=False):
        spread, log_determinant_q = _squared_norm(q, _root(p))
        shift, _ = _squared_norm(q, (p.mean - q.mean).unsqueeze(-1))
        log_ratio = log_determinant_q - _log_determinant(p)
        return 0.5 * (log_ratio + spread.sum(-1) + shift.squeeze(-1) - p.event_shape[0])


def _root(p: Distribution) -> Tensor:
    """A (..., d, m) with A A^T the covariance."""
    if isinstance(p, LowRankNormal):
        return torch.cat([p.factor, torch.diag_embed(p.diagonal.sqrt())], dim=-1)
    if isinstance(p, MultivariateNormal):
        return p.scale_tril
    return torch.diag_embed(p.stddev)


def _log_determinant(p: Distribution) -> Tensor:
    if isinstance(p, LowRankNormal):
        return p._factorise()[2]
    if isinstance(p, MultivariateNormal):
        return 2 * p.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 2 * p.stddev.log().sum(-1)


def _squared_norm(q: Distribution, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Squared norms under q of the columns (..., d, m) -> (..., m), and the log-determinant of q's covariance."""
    if isinstance(q, LowRankNormal):
        return q.squared_norm(columns)
    if isinstance(q, MultivariateNormal):
        whitened = torch.linalg.solve_triangular(q.scale_tril, columns, upper=False)
    else:
        whitened = columns / q.stddev.unsqueeze(-1)
    return whitened.square().sum(-2), _log_determinant(q)
