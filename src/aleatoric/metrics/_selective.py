"""Whether a doubtful answer is a bad one: the risk if the most doubtful cases were held back, or read again.

An uncertainty (n,) and a risk (n,) per case, such as 1 - Dice, both the higher the worse. Only the order of the
uncertainties matters. Cases of equal uncertainty come in no order: every curve is the mean over all orders that they
could have. A case where either is NaN is left out. Results are of the risk's type, of whole numbers float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ._overlap import plain

__all__ = ["RiskCoverageCurve", "SecondReadCurve", "aurc", "risk_coverage_curve", "second_read_curve"]


class RiskCoverageCurve(NamedTuple):
    """Each (points,), in the order of a coverage that grows to 1."""

    coverage: Tensor  # share of the cases that are answered, the least doubtful first
    risk: Tensor  # mean risk of those that are answered
    oracle: Tensor  # the same, if the uncertainty ranked the cases as the risk does: no order is better


class SecondReadCurve(NamedTuple):
    """Each (points,), in the order of a share that grows from 0 to 1."""

    share: Tensor  # of the cases that are read again, the most doubtful first
    risk: Tensor  # mean risk of ALL cases, those that are read again with the second reader's
    random: Tensor  # the same, if cases were picked by lot: a straight line
    oracle: Tensor  # the same, if those were picked first where a second reader helps most


def aurc(uncertainty: Tensor, risk: Tensor, *, excess: bool = False, weights: Tensor | None = None) -> Tensor:
    """Area under the risk-coverage curve (Geifman and El-Yaniv 2017, Selective Classification for Deep Networks).

    The mean over the coverages 1/n, 2/n, ..., 1 of the mean risk of that share of least doubtful cases; the risk of all
    where the uncertainty says nothing. The excess over the best order of the same risks (E-AURC, Geifman, Uziel and
    El-Yaniv 2019, here from the risks themselves and not from the paper's approximation for errors of 0 and 1) is 0 for
    a perfect order and lets models of different risk be compared.

    Args:
        uncertainty: (n,) the higher, the more doubtful.
        risk: (n,) the higher, the worse.
        excess: less the area of the best order.
        weights: (..., n) how often each case counts, whole numbers, such as the draws of a bootstrap.

    Returns:
        (...) of the weights, () without; NaN where no case has both values, or none is drawn.

    Raises:
        InputError: no tensors, shapes that do not fit.
    """
    key, values, kept = _defined(uncertainty, risk)
    if weights is None:
        counts = torch.ones_like(values)
    elif plain(weights, "weights").shape[-1:] != uncertainty.shape:
        raise InputError(f"weights have shape {tuple(weights.shape)} for {len(uncertainty)} cases; pass (..., cases).")
    else:
        counts = weights.to(values)[..., kept]
    area = _area(key, values, counts)
    return (area - _area(values, values, counts) if excess else area).to(_kind(risk))


def risk_coverage_curve(uncertainty: Tensor, risk: Tensor, num_points: int | None = None) -> RiskCoverageCurve:
    """Mean risk of the cases that are answered, for every share that may be.

    Args:
        uncertainty: (n,) the higher, the more doubtful.
        risk: (n,) the higher, the worse.
        num_points: at most so many points, evenly spread from one case to all; None: a point per case.

    Raises:
        InputError: shapes that do not fit, fewer than two points.
    """
    key, values, _ = _defined(uncertainty, risk)
    counts = torch.arange(1, len(values) + 1, device=values.device, dtype=values.dtype)
    points = _points(1, len(values), num_points, values.device) - 1
    ours, oracle = ((_levelled(by, values).cumsum(0) / counts)[points] for by in (key, values))
    coverage = counts[points] / max(len(values), 1)
    return RiskCoverageCurve(*(part.to(_kind(risk)) for part in (coverage, ours, oracle)))


def second_read_curve(
    uncertainty: Tensor, risk: Tensor, second_risk: Tensor | None = None, num_points: int | None = None
) -> SecondReadCurve:
    """Mean risk of all cases when an expert reads the most doubtful ones again.

    Its area, with a second reader who is always right, is the AUGRC of Traub et al. (Overcoming Common Flaws in the
    Evaluation of Selective Classification Systems, 2024): unlike the risk-coverage curve it does not weigh the few most
    certain cases most.

    Args:
        uncertainty: (n,) the higher, the more doubtful.
        risk: (n,) of the model, the higher, the worse.
        second_risk: (n,) of the second reader, on the same scale; None: 0.
        num_points: at most so many points, evenly spread from no case to all; None: a point per case.

    Raises:
        InputError: shapes that do not fit, fewer than two points.
    """
    second = torch.zeros_like(plain(risk, "risk")) if second_risk is None else second_risk
    key, gain, kept = _defined(uncertainty, risk, second)
    first = risk.to(gain)[kept]
    points = _points(0, len(gain), num_points, gain.device)
    number = max(len(gain), 1)
    saved = [torch.cat([gain.new_zeros(1), _levelled(-by, gain).cumsum(0)])[points] / number for by in (key, gain)]
    share = points.to(gain) / number
    ours, oracle = (first.mean() - part for part in saved)
    curves = (share, ours, first.mean() - share * gain.mean(), oracle)
    return SecondReadCurve(*(part.to(_kind(risk)) for part in curves))


def _kind(risk: Tensor) -> torch.dtype:
    """What a mean of risks has: of whole numbers, or of yes and no, fractions."""
    return risk.dtype if risk.is_floating_point() else torch.float32


def _defined(uncertainty: Tensor, risk: Tensor, second: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Of the cases with all values: uncertainty, risk (less the second reader's), and which (n,) they are."""
    uncertainty, risk = plain(uncertainty, "uncertainty"), plain(risk, "risk")
    second = None if second is None else plain(second, "second_risk")
    for tensor, name in ((risk, "risk"), (uncertainty if second is None else second, "second_risk")):
        if uncertainty.dim() != 1 or tensor.shape != uncertainty.shape:
            raise InputError(
                f"uncertainty has shape {tuple(uncertainty.shape)} and {name} {tuple(tensor.shape)}; pass one "
                f"number per case in each, (n,) and (n,)."
            )
    exact = torch.float32 if risk.device.type == "mps" else torch.float64
    if not uncertainty.is_floating_point():
        uncertainty = uncertainty.to(exact)  # which has an order that can be turned round: -1 of uint8 is 255
    values = risk.to(exact) if second is None else risk.to(exact) - second.to(exact)
    kept = ~(uncertainty.isnan() | values.isnan())
    return uncertainty[kept], values[kept], kept


def _points(first: int, last: int, number: int | None, device: torch.device) -> Tensor:
    """Whole numbers from ``first`` to ``last``, all or evenly spread."""
    if number is not None and number < 2:
        raise InputError(f"num_points is {number}; a curve has two points at least.")
    if number is None or number > last - first:
        return torch.arange(first, last + 1, device=device)
    return torch.linspace(first, last, number, device=device, dtype=torch.float64).round().long()


def _levelled(key: Tensor, values: Tensor) -> Tensor:
    """``values`` (n,) in the order of ``key``, each the mean of those with its key: what any of their orders gives."""
    _, place, count = torch.unique(key, return_inverse=True, return_counts=True)
    means = values.new_zeros(len(count)).index_add_(0, place, values) / count
    return means[place.sort().values]


def _area(key: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Mean over 1 <= i <= N of (sum of the i values with the least key) / i, N the sum of the weights (..., n).

    Of m cases with one key, values that sum to s, after k cases that sum to c, the j-th adds (c + j s / m) / (k + j) in
    the mean over their orders. The sum over j has a closed form, with digamma for the harmonic numbers.
    """
    order = key.argsort()
    ends = torch.unique_consecutive(key[order], return_counts=True)[1].cumsum(0) - 1
    weights = weights[..., order]
    after, total_after = weights.cumsum(-1)[..., ends], (weights * values[order]).cumsum(-1)[..., ends]
    count, total = (torch.diff(part, dim=-1, prepend=torch.zeros_like(part[..., :1])) for part in (after, total_after))
    harmonic = torch.digamma(after + 1)
    harmonic = torch.diff(harmonic, dim=-1, prepend=torch.digamma(torch.ones_like(harmonic[..., :1])))
    mean = total / count.clamp(min=1)
    return (total + (total_after - after * mean) * harmonic).sum(-1) / weights.sum(-1)
