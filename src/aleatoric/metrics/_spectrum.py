"""How evenly a density uses its latent axes."""

from __future__ import annotations

import torch

from ..errors import InputError
from ._overlap import plain

__all__ = ["effective_rank", "gini_index"]


def effective_rank(scale: torch.Tensor) -> torch.Tensor:
    """exp(-sum_i c_i ln c_i) with c = scale / sum(scale): how many latent axes are in use, as a number from 1 to d.

    Roy and Vetterli, The effective rank (2007); SPU-Net eq. 17, with the standard deviations of an axis-aligned density
    as its singular values. A vector of zeros has rank 0.

    Args:
        scale: (..., d), not negative.

    Returns:
        (...), floating point.

    Example:
        >>> effective_rank(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        tensor([3., 1., 0.])
    """
    share, total = _shares(scale)
    return torch.where(total > 0, torch.special.entr(share).sum(-1).exp(), total)


def gini_index(scale: torch.Tensor) -> torch.Tensor:
    """1 - 2 sum_k c_k (L - k + 1/2) / L, c = scale / sum(scale) in ascending order: how unevenly the axes are used.

    cSAE eq. 20 (Hurley and Rickard 2009). From 0, all equal, to 1 - 1/L, one axis only. A vector of zeros counts as all
    equal: 0.

    Args:
        scale: (..., L), not negative.

    Returns:
        (...), floating point.

    Example:
        >>> gini_index(torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))
        tensor([0.0000, 0.5000, 0.0000])
    """
    share, total = _shares(scale)
    length = share.shape[-1]
    rank = torch.arange(1, length + 1, device=share.device, dtype=share.dtype)
    index = 1 - 2 * (share.sort(-1).values * (length - rank + 0.5) / length).sum(-1)
    return torch.where(total > 0, index, total)


def _shares(scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Entries divided by their sum, (..., d), zeros where the sum is 0; and the sum, (...)."""
    scale = plain(scale, "scale")
    if scale.ndim == 0 or scale.shape[-1] == 0:
        raise InputError(f"scale has shape {tuple(scale.shape)}; pass (..., d) standard deviations, d at least 1.")
    if not scale.is_floating_point():
        scale = scale.float()
    if bool((scale < 0).any()):
        raise InputError(f"scale holds {float(scale.min()):g}; pass standard deviations, which are not negative.")
    total = scale.sum(-1)
    return torch.where(total.unsqueeze(-1) > 0, scale / total.unsqueeze(-1), 0.0), total
