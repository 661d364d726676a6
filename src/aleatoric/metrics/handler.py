"""MONAI's metric handler passes two things on, a prediction and a label; this one passes the mean prediction too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics.metric import reinit__is_reduced
from monai.handlers import IgniteMetricHandler

__all__ = ["MultiRaterMetricHandler"]


class MultiRaterMetricHandler(IgniteMetricHandler):
    """``IgniteMetricHandler`` for a metric that takes a mean prediction, :class:`~aleatoric.metrics.MultiRaterMetrics`.

    Its ``output_transform`` gives the samples' masks (B, N, *S), the labels (B, R, *S) and, where there is one, the
    mean prediction (B, *S); or lists of them for decollated cases. Its arguments are those of MONAI's handler.
    """

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Score an engine's batch. Ignite's own would take lists apart in pairs, and refuse three."""
        self.update(self._output_transform(engine.state.output))

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Score a batch."""
        if len(output) == 3 and self.metric_fn is not None:
            self.metric_fn(output[0], output[1], mean_prediction=output[2])
        else:
            super().update(output)
