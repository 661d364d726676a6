"""How the training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .drawing import CLASS_STYLES, RATER_COLORS, log_axis, new_figure, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT, _LEGEND_ROW = 3.4, 2.35, 0.16  # inches, of a panel and of a row of its legend


def training_curves(
    series: Mapping[str, Sequence[float] | tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str = "epoch",
    title: str | None = None,
) -> Figure:
    """A panel per quantity over the training, a line per part of the data, which looks the same in every panel.

    Args:
        series: name -> values, one per epoch from 1, or (positions, values). A name ``"kl/training"`` is the line
            "training" in the panel "kl"; a name without slash is a panel with one line. A panel whose values are all
            positive and span more than a factor of 20 has a logarithmic axis, which its title says. Values that are
            not finite are left out and counted in the title.
        xlabel: what the positions count; ticks are at whole numbers.
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
    places = {line: number for number, line in enumerate(dict.fromkeys(n for of in panels.values() for n in of if n))}
    heights = [_legend_rows(lines)[1] for lines in panels.values()]
    legends = sum(max(heights[row * columns : (row + 1) * columns]) for row in range(rows))
    figure = new_figure(_WIDTH * columns, _HEIGHT * rows + _LEGEND_ROW * legends + 0.4)
    figure.get_layout_engine().set(h_pad=0.05)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (panel, lines) in zip(axes.flat, panels.items()):
        lost = 0
        kept = []
        for line, (x, y) in lines.items():
            number = places.get(line, 0)
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
        said = [f"{lost} not finite"] if lost else []
        if everything.size and everything.min() > 0 and everything.max() > 20 * everything.min():
            log_axis(axis)
            said.insert(0, "logarithmic")
        axis.set_title(panel + (f" ({', '.join(said)})" if said else ""), fontsize=9)
        axis.set_xlabel(xlabel, fontsize=8)
        whole_numbers(axis)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        if any(lines):
            _legend_under(axis, _legend_rows(lines)[0])
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _legend_rows(lines: Mapping[str, Any]) -> tuple[int, int]:
    """Columns and rows of a panel's legend; no row where there is nothing to name."""
    names = [name for name in lines if name]
    if not names:
        return 0, 0
    columns = min(len(names), max(1, int((_WIDTH - 0.4) / (0.5 + 0.065 * max(map(len, names))))))
    return columns, -(-len(names) // columns)


def _legend_under(axis: Axes, columns: int) -> None:
    """The lines' names under the panel and the words of its axis, where they cover nothing."""
    from matplotlib.transforms import ScaledTranslation

    below = ScaledTranslation(0, -0.42, axis.get_figure(root=True).dpi_scale_trans)  # type: ignore[union-attr]
    axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=axis.transAxes + below,
        ncols=columns,
        fontsize=7,
        frameon=False,
        borderpad=0.0,
        borderaxespad=0.0,
        labelspacing=0.3,
        columnspacing=1.2,
    )


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
