"""How the training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .drawing import CLASS_STYLES, RATER_COLORS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves(
    series: Mapping[str, Sequence[float] | tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str = "epoch",
    title: str | None = None,
) -> Figure:
    """A panel per quantity over the training, a line per part of the data.

    Args:
        series: name -> values, one per epoch from 1, or (positions, values). A name ``"kl/training"`` is the line
            "training" in the panel "kl"; a name without slash is a panel with one line. A panel whose values are all
            positive and span more than a factor of 20 has a logarithmic axis. Values that are not finite are left
            out and counted in the panel's title.
        xlabel: what the positions count.
        title: line above the picture.

    Raises:
        InputError: no series, or positions and values that differ in number.
    """
    if not series:
        raise InputError("found no series to draw, expected at least one; train an epoch first")
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for name, values in series.items():
        panel, _, line = name.partition("/")
        panels.setdefault(panel, {})[line] = _positions(name, values)

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(3.4 * columns, 2.3 * rows + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (panel, lines) in zip(axes.flat, panels.items()):
        lost = 0
        kept = []
        for number, (line, (x, y)) in enumerate(lines.items()):
            finite = np.isfinite(y)
            lost += int((~finite).sum())
            kept.append(y[finite])
            color = RATER_COLORS[(6, 1, 2, 3, 5, 0, 4)[number % 7]]  # on white: dark ones first
            style = CLASS_STYLES[number % len(CLASS_STYLES)]
            marker = "o" if finite.sum() == 1 else ""
            axis.plot(
                x[finite], y[finite], color=color, linestyle=style, marker=marker, markersize=3, label=line or None
            )
        everything = np.concatenate(kept)
        if everything.size and everything.min() > 0 and everything.max() > 20 * everything.min():
            axis.set_yscale("log")
        axis.set_title(panel + (f" ({lost} not finite)" if lost else ""), fontsize=9)
        axis.set_xlabel(xlabel, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        if any(lines):
            axis.legend(fontsize=7)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _positions(name: str, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of a line: positions 1, 2, ... unless ``values`` is a pair of sequences."""
    if isinstance(values, tuple) and len(values) == 2 and np.ndim(values[0]) == 1:
        x, y = (np.asarray(part, dtype=float) for part in values)
    else:
        y = np.asarray(values, dtype=float)
        x = np.arange(1, y.size + 1, dtype=float)
    if x.shape != y.shape or y.ndim != 1:
        raise InputError(f"found {x.shape} positions and {y.shape} values for {name}, expected as many; pass pairs")
    return x, y
