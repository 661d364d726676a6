"""Whether the samples disagree as often, as much and where the raters do: pictures of calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError
from .comparing import WIDTH, ModelStyle, check_models, finish_axis, legend_below, line_points, model_styles
from .drawing import as_array, log_axis, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Areas", "area_scatter", "calibration_diagram", "coverage_curves"]


def calibration_diagram(
    bins: Mapping[str, tuple[Any, Any, Any]],
    xlabel: str = "predicted probability",
    ylabel: str = "raters' frequency",
    counted: str = "pixels",
    places: Mapping[str, int] | None = None,
) -> Figure:
    """What was predicted against how often it was so, bin by bin, above how many fell into each bin.

    Args:
        bins: model -> counts, mean prediction and mean observation of each bin, (L,) each; an empty bin is NaN.
        xlabel, ylabel: what is predicted, and what is observed.
        counted: what the counts are of.
        places: model -> its place among all that are compared, which gives its look; None: the place in ``bins``.

    Raises:
        InputError: no model, more than a picture holds, columns of different lengths, or a model without a place.
    """
    check_models(bins)
    figure = new_figure(WIDTH, 5.4 + 0.17 * len(bins))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _diagonal(top)
    styles = model_styles(bins, places)
    some: list[float] = []  # counts of bins that are not empty
    for name, (count, predicted, observed) in bins.items():
        style = styles[name]
        counts = np.asarray(count, dtype=float)
        some += counts[counts > 0].tolist()
        _curve(top, name, predicted, observed, style)
        edges = np.linspace(0, 1, counts.size + 1)
        bottom.stairs(counts, edges, color=style.color, linestyle=style.line, linewidth=1.5)
    if some:
        bottom.set_ylim(min(some) / 1.5, max(some) * 1.5)
        log_axis(bottom, most=4, whole=True)
    _square(top)
    finish_axis(top, None, ylabel)
    finish_axis(bottom, xlabel, counted)
    legend_below(figure, top)
    return figure


def coverage_curves(curves: Mapping[str, tuple[Any, Any]], places: Mapping[str, int] | None = None) -> Figure:
    """Share of raters inside the samples' central interval against the interval's level.

    Args:
        curves: model -> levels and shares, (L,) each.
        places: as :func:`calibration_diagram`.

    Raises:
        InputError: as :func:`calibration_diagram`.
    """
    check_models(curves)
    figure = new_figure(WIDTH, 4.2 + 0.17 * len(curves))
    axis = figure.subplots()
    _diagonal(axis)
    styles = model_styles(curves, places)
    for name, (level, coverage) in curves.items():
        _curve(axis, name, level, coverage, styles[name])
    _square(axis)
    finish_axis(axis, "level of the samples' central interval", "share of raters inside")
    legend_below(figure, axis)
    return figure


class Areas(NamedTuple):
    """Of the same n cases."""

    samples: Any  # (n,) mean over the samples
    low: Any  # (n,) their 5 % quantile
    high: Any  # (n,) their 95 % quantile
    raters: Any  # (n,) mean over the raters


def area_scatter(
    areas: Mapping[str, Areas], unit: str = "pixels", most: int = 120, places: Mapping[str, int] | None = None
) -> Figure:
    """The samples' area with its range against the raters' area, a panel per model; axes grow with the square root.

    Args:
        areas: model -> areas of its cases.
        unit: of the areas.
        most: cases drawn, evenly spread by rank of the raters' area, the smallest and the largest among them.
        places: as :func:`calibration_diagram`.

    Raises:
        InputError: as :func:`calibration_diagram`.
    """
    check_models(areas)
    drawn = {name: _drawn(name, one, most) for name, one in areas.items()}
    end = 1.05 * max([1.0, *(max([*one.high, *one.raters], default=0.0) for one in drawn.values())])
    figure = new_figure(WIDTH, 0.4 + 2.9 * len(areas))
    axes = figure.subplots(len(areas), 1, squeeze=False, sharex=True)[:, 0]
    styles = model_styles(areas, places)
    for axis, (name, (mean, low, high, raters)) in zip(axes, drawn.items()):
        style = styles[name]
        gap = np.full(raters.size, np.nan)  # all bars in one line, which keeps the file small
        bars = np.stack([raters, raters, gap], 1).ravel(), np.stack([low, high, gap], 1).ravel()
        axis.plot(*bars, color=style.color, linewidth=0.8, alpha=0.7)
        axis.plot(raters, mean, style.marker, color=style.color, markersize=3.5)
        axis.plot([0, end], [0, end], color="0.4", linewidth=1, linestyle=(0, (1, 1)), zorder=1)
        for scale in (axis.set_xscale, axis.set_yscale):
            scale("function", functions=(lambda a: np.sqrt(np.maximum(a, 0)), np.square))
        axis.set(xlim=(0, end), ylim=(0, end))
        axis.xaxis.set_major_locator(_roots(end))
        axis.yaxis.set_major_locator(_roots(end))
        axis.set_title(name, fontsize=9.5, loc="left", parse_math=False)
        finish_axis(axis, None, f"samples ({unit})")
    axes[-1].set_xlabel(f"raters' mean area ({unit})", fontsize=10)
    return figure


def _drawn(name: str, areas: Areas, most: int) -> Areas:
    """The cases that are drawn, by their rank."""
    columns = [as_array(column, "an area", 1).astype(float) for column in areas]
    sizes = [column.size for column in columns]
    if len(set(sizes)) != 1:
        raise InputError(f"found areas of {sizes} cases for {name}, expected as many of each; pass one model's")
    there = np.flatnonzero(np.all(np.isfinite(columns), axis=0))
    there = there[np.argsort(columns[3][there], kind="stable")]
    if there.size > most:
        there = there[np.linspace(0, there.size - 1, most).round().astype(int)]
    return Areas(*(column[there] for column in columns))


def _roots(end: float) -> Any:
    """Ticks at even steps of the square root, rounded to one digit."""
    from matplotlib.ticker import FixedLocator

    ticks = [0.0]
    for step in (0.2, 0.4, 0.6, 0.8, 1.0):
        value = end * step**2
        size = 10 ** np.floor(np.log10(value))
        ticks.append(float(np.floor(value / size) * size))
    return FixedLocator(sorted(set(ticks)))


def _curve(axis: Axes, name: str, x: Any, y: Any, style: ModelStyle) -> None:
    """A model's line of shares, above the frame, which cuts no marker at 0 or 1."""
    axis.plot(
        *line_points(name, x, y),
        color=style.color,
        linestyle=style.line,
        marker=style.marker,
        markersize=4.5,
        linewidth=1.5,
        label=name,
        clip_on=False,
        zorder=3,
    )


def _diagonal(axis: Axes) -> None:
    axis.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle=(0, (1, 1)), label="calibrated")


def _square(axis: Axes) -> None:
    axis.set(xlim=(0, 1), ylim=(0, 1))
