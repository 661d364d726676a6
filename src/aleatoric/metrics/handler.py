"""MONAI's metric handler passes two tensors on, a prediction and a label; this one passes a summary, or a third one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics.metric import reinit__is_reduced
from monai.handlers import IgniteMetricHandler

from .suite import MultiRaterMetrics
from .summary import SampleSummary

__all__ = ["MultiRaterMetricHandler"]


class MultiRaterMetricHandler(IgniteMetricHandler):
    """``IgniteMetricHandler`` for :class:`~aleatoric.metrics.MultiRaterMetrics`.

    Its ``output_transform`` gives a :class:`~aleatoric.metrics.SampleSummary`, or the samples' masks (B, N, *S), and
    the labels (B, R, *S); behind masks there may be the mean prediction (B, *S). Of decollated cases they are lists.
    Its arguments are those of MONAI's handler.
    """

    def attach(self, engine: Engine, name: str, *args: Any, **kwargs: Any) -> None:
        """Register with an engine, whose logs name a key metric: of the figures in the dict the first."""
        super().attach(engine, name, *args, **kwargs)
        metric = self.metric_fn
        if isinstance(metric, MultiRaterMetrics) and getattr(engine.state, "key_metric_name", None) == name:
            engine.state.key_metric_name = f"{metric.prefix}{(metric.shown or metric.names)[0]}"

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Score an engine's batch. Ignite's own would take lists apart in pairs, and refuse three."""
        self.update(self._output_transform(engine.state.output))

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Score a batch."""
        if self.metric_fn is not None and isinstance(output[0], SampleSummary):
            self.metric_fn(output[0].masks, output[1], summary=output[0])
        elif self.metric_fn is not None and len(output) == 3:
            self.metric_fn(output[0], output[1], mean_prediction=output[2])
        else:
            super().update(output)
