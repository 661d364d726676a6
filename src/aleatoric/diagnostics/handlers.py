"""The prior's spread through a training (SPU-Net, Fig. 7; cSAE, Figs. 3 and 4)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys
from torch.distributions import Distribution

from ..distributions import principal_scales
from ..metrics.functional import effective_rank, gini_index
from ..tables import read_table, write_table
from ..visualize import save_figure, training_curves

__all__ = ["LatentLogger", "latent_curves"]

logger = logging.getLogger(__name__)


class LatentLogger:
    """Handler that follows the prior over the validation images: latents.csv, latents.png and TensorBoard.

    A row per validation: effective rank and Gini index, both means over the images, and the mean standard deviation
    along each axis of the prior. TensorBoard gets the axes' scalars ("latent/scale_1" ...) and, at the end, the figure;
    the means of rank and index are metrics of the evaluator already. A resumed run goes on with the table that it
    finds. The host waits for the device once per validation. In a training on several devices every process needs it,
    since it gathers the others' images; the first one writes.

    A network whose training output holds no single prior (a hierarchical one) switches it off.

    Args:
        output_dir: where all goes.
        evaluator: the validation engine, with ``decollate=False``.
        draw_every: epochs between two pictures.
        tensorboard: write for TensorBoard.
    """

    def __init__(self, output_dir: str, evaluator: Engine, draw_every: int = 10, tensorboard: bool = True) -> None:
        self.output_dir = Path(output_dir)
        self.evaluator = evaluator
        self.draw_every = draw_every
        self.tensorboard = tensorboard
        self.rows: list[dict[str, float]] = []
        self._priors: list[Distribution] = []
        self._off = False
        self._writer: Any = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        self.evaluator.add_event_handler(Events.COMPLETED, self._add)

    def _start(self, engine: Engine) -> None:
        path = self.output_dir / "latents.csv"
        self.rows = []
        if engine.state.epoch > 0 and path.exists():
            self.rows = [row for row in read_table(path) if row["epoch"] <= engine.state.epoch]

    def _collect(self, engine: Engine) -> None:
        if self._off:
            return
        output: Any = engine.state.output
        prior = getattr(output[CommonKeys.PRED], "prior", None)
        if isinstance(prior, Distribution):
            self._priors.append(prior)  # a few numbers per image; eigenvalues are taken once, at the end
        else:
            self._off = True
            logger.info("the network has no single prior: %s is not written", self.output_dir / "latents.csv")

    def _add(self, engine: Engine) -> None:
        totals = _over_processes(_totals(self._priors))
        self._priors.clear()
        if self._off or totals is None or _rank() > 0:
            return
        rank, gini, *scales = (totals[1:] / totals[0]).tolist()
        row = {"epoch": float(engine.state.epoch), "effective_rank": rank, "gini_index": gini}
        row |= {f"scale_{axis}": value for axis, value in enumerate(scales, start=1)}
        self.rows.append(row)
        write_table(self.output_dir / "latents.csv", self.rows)
        if self.tensorboard:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self.output_dir))
            for axis, value in enumerate(scales, start=1):
                self._writer.add_scalar(f"latent/scale_{axis}", value, engine.state.epoch)
            self._writer.flush()
        if engine.state.epoch % self.draw_every == 0:
            self._draw()

    def _finish(self, engine: Engine) -> None:
        if self.rows and _rank() == 0:
            figure = self._draw()
            if self._writer is not None:
                figure.canvas.draw()
                pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
                self._writer.add_image("latent/figure", pixels, engine.state.epoch, dataformats="HWC")
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _draw(self) -> Any:
        figure = training_curves(latent_curves(self.rows))
        save_figure(figure, self.output_dir / "latents.png")
        return figure


def latent_curves(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[list[float], list[float]]]:
    """Rows of latents.csv as the series of :func:`~aleatoric.visualize.training_curves`."""
    titles = {"effective_rank": "effective rank", "gini_index": "Gini index"}
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "epoch"]
    series = {}
    for name in names:
        title = titles.get(name, f"prior standard deviation/axis {name.removeprefix('scale_')}")
        there = [row for row in rows if name in row]
        series[title] = ([row["epoch"] for row in there], [row[name] for row in there])
    return series


def _totals(priors: Sequence[Distribution]) -> np.ndarray | None:
    """Images, and the sums over them of effective rank, Gini index and each axis's scale; None without an image."""
    if not priors:
        return None
    scales = torch.cat([principal_scales(prior).flatten(0, -2) for prior in priors]).float()  # (n, d)
    count = torch.full((1,), float(len(scales)), device=scales.device)
    sums = [effective_rank(scales).sum(0, keepdim=True), gini_index(scales).sum(0, keepdim=True), scales.sum(0)]
    return torch.cat([count, *sums]).cpu().numpy().astype(np.float64)


def _over_processes(totals: np.ndarray | None) -> np.ndarray | None:
    """The sum over all processes; one that saw no image adds nothing."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return totals
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, totals)
    there = [part for part in gathered if part is not None]
    return np.sum(there, axis=0) if there else None


def _rank() -> int:
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if running else 0
