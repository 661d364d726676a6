"""MONAI metrics of selective prediction: they keep an uncertainty and a risk per case, and rank them at the end."""

from __future__ import annotations

from typing import Any

import torch
from monai.config import TensorOrList
from monai.metrics import CumulativeIterationMetric

from ..errors import InputError
from ._selective import RiskCoverageCurve, SecondReadCurve, aurc, risk_coverage_curve, second_read_curve
from ._units import own_options
from .cumulative import require_cases

__all__ = ["AreaUnderRiskCoverage", "SecondReadRisk"]


class _RankedCases(CumulativeIterationMetric):
    """Called as ``metric(uncertainty, risk)``, each (B,) or (B, 1); keeps both per case, and what else it is given."""

    def _compute_list(self, y_pred: TensorOrList, y: TensorOrList | None = None, **kwargs: Any) -> torch.Tensor:
        require_cases(self, y_pred)
        return torch.cat(
            [
                self._compute_tensor(value[None], None if y is None else y[number][None], **own_options(kwargs, number))
                for number, value in enumerate(y_pred)
            ]
        )

    def _compute_tensor(
        self,
        y_pred: torch.Tensor,
        y: torch.Tensor | None = None,
        second_risk: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        if y is None:
            raise InputError(f"{type(self).__name__} got no risk; call it as metric(uncertainty, risk).")
        require_cases(self, y_pred)
        columns = [y_pred, y] if second_risk is None else [y_pred, y, second_risk]
        if self._buffers is not None and len(self._buffers[0][0]) != len(columns):
            raise InputError(
                f"this batch came {'without' if second_risk is None else 'with'} second_risk, unlike those before it; "
                "give all batches the same, and call reset() in between."
            )
        if any(column.numel() != len(y_pred) for column in columns):
            shapes = ", ".join(str(tuple(column.shape)) for column in columns)
            raise InputError(f"{type(self).__name__} got values of shapes {shapes}; pass one number per case, (B,).")
        return torch.stack([column.reshape(-1).float() for column in columns], dim=1)

    def per_case(self) -> torch.Tensor:
        """(cases, 2) uncertainty and risk (third: the second reader's), of all processes, as they were scored."""
        buffer = self.get_buffer()
        if buffer is None:
            raise InputError(f"{type(self).__name__} has seen no case; score a batch before asking for the figure.")
        return buffer


class AreaUnderRiskCoverage(_RankedCases):
    """See :func:`~aleatoric.metrics.functional.aurc`.

    Args:
        excess: less the area of the best order of the same risks.
    """

    def __init__(self, excess: bool = False) -> None:
        super().__init__()
        self.excess = excess

    def aggregate(self) -> torch.Tensor:
        """(), the lower the better; NaN where no case has both values."""
        uncertainty, risk = self.per_case().T[:2]
        return aurc(uncertainty, risk, excess=self.excess)

    def curve(self, num_points: int | None = None) -> RiskCoverageCurve:
        """:func:`~aleatoric.metrics.functional.risk_coverage_curve` of all cases so far."""
        uncertainty, risk = self.per_case().T[:2]
        return risk_coverage_curve(uncertainty, risk, num_points)


class SecondReadRisk(_RankedCases):
    """Mean risk of all cases when the most doubtful ones are read again by an expert.

    Called as ``metric(uncertainty, risk)``, or with ``second_risk=`` (B,) of the expert on these cases, otherwise 0.
    See :func:`~aleatoric.metrics.functional.second_read_curve`.

    Args:
        share: of the cases that are read again, 0 to 1.
    """

    def __init__(self, share: float = 0.1) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise InputError(f"share is {share}; pass the share of cases that are read again, from 0 to 1.")
        self.share = share

    def aggregate(self) -> torch.Tensor:
        """(), the lower the better; between two whole numbers of cases, the line between their risks."""
        _, risk, _, _ = self.curve()
        place = self.share * (len(risk) - 1)
        below = int(place)
        return torch.lerp(risk[below], risk[min(below + 1, len(risk) - 1)], place - below)

    def curve(self, num_points: int | None = None) -> SecondReadCurve:
        """:func:`~aleatoric.metrics.functional.second_read_curve` of all cases so far."""
        columns = self.per_case().T
        second_risk = columns[2] if len(columns) > 2 else None
        return second_read_curve(columns[0], columns[1], second_risk, num_points)
