"""The course of a training as a table and a picture, beside what TensorBoard gets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events

from .tables import read_table, write_table

__all__ = ["HistoryWriter"]


class HistoryWriter:
    """Handler that writes training.csv after every epoch, and training.png at the end and every ``draw_every`` epochs.

    A resumed run goes on with the table that it finds.

    Args:
        output_dir: where both go.
        evaluator: the validation engine, or several; their figures stand beside the trainer's.
        draw_every: epochs between two pictures.
    """

    def __init__(
        self, output_dir: str, evaluator: Engine | Sequence[Engine] | None = None, draw_every: int = 10
    ) -> None:
        self.output_dir = Path(output_dir)
        self.evaluators = [evaluator] if isinstance(evaluator, Engine) else list(evaluator or [])
        self.draw_every = draw_every
        self.rows: list[dict[str, float]] = []

    def attach(self, engine: Engine) -> None:
        """Register with a trainer, behind its logger of loss terms and its ``ValidationHandler``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._draw)

    def _start(self, engine: Engine) -> None:
        path = self.output_dir / "training.csv"
        self.rows = []
        if engine.state.epoch > 0 and path.exists():
            self.rows = [row for row in read_table(path) if row["epoch"] <= engine.state.epoch]

    def _add(self, engine: Engine) -> None:
        figures = dict(engine.state.metrics)
        for evaluator in self.evaluators:
            if evaluator.state.epoch == engine.state.epoch:
                # of a metric that gives several figures ignite keeps the dict besides
                figures |= {
                    name: value for name, value in evaluator.state.metrics.items() if not isinstance(value, dict)
                }
        self.rows.append({"epoch": engine.state.epoch, **{k: float(v) for k, v in sorted(figures.items())}})
        write_table(self.output_dir / "training.csv", self.rows)
        if engine.state.epoch % self.draw_every == 0:
            self._draw(engine)

    def _draw(self, engine: Engine) -> None:
        from .visualize import save_figure, training_curves

        series: dict[str, tuple[list[float], list[float]]] = {}
        for row in self.rows:
            for name, value in row.items():
                part, _, quantity = name.partition("_")
                if name == "epoch":
                    continue
                line = {"train": "training", "val": "validation"}.get(part, part)
                x, y = series.setdefault(f"{quantity.replace('_', ' ')}/{line}", ([], []))
                x.append(row["epoch"])
                y.append(value)
        if series:
            ordered = dict(sorted(series.items(), key=lambda item: (item[0].split("/")[0] != "loss", item[0])))
            save_figure(training_curves(ordered), self.output_dir / "training.png")
