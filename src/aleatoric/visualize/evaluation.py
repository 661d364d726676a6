"""Evaluated models beside each other: the energy distance and its terms, its spread over cases, and the courses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError
from .comparing import (
    WIDTH,
    check_models,
    finish_axis,
    legend_below,
    line_points,
    model_style,
    model_styles,
    names_above,
)
from .drawing import RATER_COLORS, as_array, log_axis, new_figure, whole_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "LetterValues",
    "course_curves",
    "energy_terms",
    "latent_boxes",
    "letter_value_plot",
    "letter_values",
]


def energy_terms(terms: Mapping[str, tuple[float, float, float]]) -> Figure:
    """A bar of length 2 E d(s,y) per model, cut into the raters' diversity, the samples' and what is left: the GED.

    The split of Generalized PU-Net, Fig. 3, drawn so that the parts add up.

    Args:
        terms: model -> means over cases of E d(s,y), E d(s,s') and E d(y,y'), V-statistics, by which none is negative.

    Raises:
        InputError: no model, or more than a picture holds.
    """
    check_models(terms)
    parts = ("raters: E d(y,y')", "samples: E d(s,s')", "left: GED")
    looks = (("0.85", "\\\\", "black"), (RATER_COLORS[0], "//", "black"), (RATER_COLORS[5], "", "white"))
    figure = new_figure(WIDTH, 1.2 + 0.62 * len(terms))
    axis = figure.subplots()
    for row, (cross, samples, raters) in enumerate(terms.values()):
        start = 0.0
        for value, (color, hatch, ink) in zip((raters, samples, 2 * cross - samples - raters), looks):
            axis.barh(
                row, value, left=start, height=0.5, color=color, hatch=hatch, edgecolor="black", linewidth=0.6, zorder=2
            )
            box = {"boxstyle": "round,pad=0.1", "facecolor": color, "edgecolor": "none"}
            if value > 0.09 * max(2 * one[0] for one in terms.values()):
                middle = start + value / 2
                axis.text(middle, row, f"{value:.3f}", ha="center", va="center", fontsize=9, color=ink, bbox=box)
            start += value
    names_above(axis, list(terms), 0.5)
    handles = [
        axis.barh([0], [0], color=color, hatch=hatch, edgecolor="black", linewidth=0.6, label=name)
        for name, (color, hatch, _) in zip(parts, looks)
    ]
    finish_axis(axis, "2 E d(s,y), cut into its parts", None)
    axis.set_xlim(left=0)
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


class LetterValues(NamedTuple):
    """The median, and pairs of lower and upper fourths, eighths, sixteenths ..."""

    median: float
    lower: np.ndarray  # (k,) from the fourth outward
    upper: np.ndarray  # (k,)
    outside: np.ndarray  # values beyond the last pair, in order


def letter_values(values: Any) -> LetterValues:
    """Letter values of Hofmann, Wickham and Kafadar (J. Comput. Graph. Stat. 26, 2017).

    The median has depth (n + 1) / 2 in the order of the values, each next letter (floor(depth) + 1) / 2; where the
    depth is half, the two neighbours' mean counts. As many are given as the sample tells with confidence: those whose
    95 % interval does not reach the next letter, floor(log2(n) - log2(2 z^2)) + 1 with z = 1.96 and the median counted
    (the paper's rule 4), but the fourths at least.

    Args:
        values: (n,); those that are not finite are left out.

    Raises:
        InputError: no finite value.
    """
    ordered = np.sort(as_array(values, "values", 1).astype(float))
    ordered = ordered[np.isfinite(ordered)]
    count = ordered.size
    if not count:
        raise InputError("found no finite value, expected at least one; leave the figure out where it is undefined")
    letters = math.floor(math.log2(count / (2 * NormalDist().inv_cdf(0.975) ** 2))) + 1
    depth = (count + 1) / 2
    lower, upper = [], []
    for letter in range(max(letters, 2)):
        places = np.array([math.floor(depth), math.ceil(depth)])
        if letter:
            lower.append(ordered[places - 1].mean())
            upper.append(ordered[count - places].mean())
        else:
            median = float(ordered[places - 1].mean())
        depth = (math.floor(depth) + 1) / 2
    outside = ordered[(ordered < lower[-1]) | (ordered > upper[-1])]
    return LetterValues(median, np.array(lower), np.array(upper), outside)


def letter_value_plot(
    values: Mapping[str, Any],
    xlabel: str,
    *,
    limits: tuple[float, float] | None = None,
    places: Mapping[str, int] | None = None,
) -> Figure:
    """Boxes between the letter values of each model's cases, thinner and lighter outward; what is beyond, as circles.

    After Generalized PU-Net, Fig. 2.

    Args:
        values: model -> (n,) of its cases.
        xlabel: what they are.
        limits: ends of the axis, (0, 1) for shares; None: as the values ask.
        places: model -> its place among all that are compared, which gives its colour; None: the place in ``values``.

    Raises:
        InputError: no model, more than a picture holds, or one without a finite value or without a place.
    """
    check_models(values)
    figure = new_figure(WIDTH, 0.8 + 0.7 * len(values))
    axis = figure.subplots()
    styles = model_styles(values, places)
    for row, (name, every) in enumerate(values.items()):
        letters, style = letter_values(every), styles[name]
        pairs = len(letters.lower)
        for number in reversed(range(pairs)):
            low, high = letters.lower[number], letters.upper[number]
            height = 0.5 * (pairs - number) / pairs
            axis.barh(
                row,
                high - low,
                left=low,
                height=height,
                color=_lighter(style.color, 0.75 * number / pairs + 0.15),
                edgecolor="black",
                linewidth=0.6,
            )
        # a limit cuts no circle and no line
        axis.plot(
            letters.outside,
            np.full(letters.outside.size, row),
            "o",
            color=style.color,
            mfc="none",
            markersize=3,
            clip_on=False,
        )
        axis.plot([letters.median] * 2, [row - 0.25, row + 0.25], color="black", linewidth=2, clip_on=False)
    if limits is not None:
        axis.set_xlim(limits)
    names_above(axis, list(values), 0.5)
    finish_axis(axis, xlabel, None)
    return figure


def course_curves(
    courses: Mapping[str, Sequence[tuple[Any, Any]]],
    ylabel: str,
    *,
    references: Mapping[str, Sequence[tuple[Any, Any]]] | None = None,
    xlabel: str = "epoch",
    xlim: tuple[float, float] | None = None,
    log: bool | None = None,
    places: Mapping[str, int] | None = None,
) -> Figure:
    """A line per run, those of one model alike: the course of a training, or any curve.

    Args:
        courses: model -> (x, y) of each of its runs; what is not finite is left out.
        ylabel, xlabel: what they are; epochs have ticks at whole numbers only.
        references: name in the legend -> lines (x, y) that are no model's, or one per model in the models' order,
            then in their colours; thin, and grey in the legend.
        xlim: ends of the horizontal axis; None: as the positions ask.
        log: a logarithmic axis, which its label says; None: where all is positive and spans more than a factor of 20.
        places: model -> its place among all that are compared, which gives its look; None: the place in ``courses``.

    Raises:
        InputError: no model, more than a picture holds, positions and values that differ in number, or a model
            without a place.
    """
    from matplotlib.lines import Line2D

    check_models(courses)
    names, styles = list(courses), model_styles(courses, places)
    figure = new_figure(WIDTH, 3.2 + 0.17 * (len(names) + len(references or {})))
    axis = figure.subplots()
    low, high = math.inf, -math.inf
    for name, runs in courses.items():
        style = styles[name]
        for run, (x, y) in enumerate(runs):
            points = line_points(name, x, y)
            axis.plot(
                *points,
                color=style.color,
                linestyle=style.line,
                linewidth=1.6 if len(runs) == 1 else 0.9,
                marker=style.marker,
                markersize=4,
                markevery=max(1, len(points[0]) // 6),
                label=name if run == 0 else None,
                clip_on=xlim is None,  # ends of the axis cut no marker
                zorder=3,
            )
            if points[1].size:
                low, high = min(low, points[1].min()), max(high, points[1].max())
    proxies = []
    for (name, lines), dash in zip((references or {}).items(), ((0, (1, 1)), (0, (4, 4)))):
        of_models = len(lines) == len(names) > 1
        for number, (x, y) in enumerate(lines):
            color = styles[names[number]].color if of_models else "0.35"
            axis.plot(*line_points(name, x, y), color=color, linestyle=dash, linewidth=1.0)
        proxies.append(Line2D([], [], color="0.35", linestyle=dash, linewidth=1.0, label=name))
    if log or (log is None and low > 0 and high > 20 * low):
        log_axis(axis)
        ylabel += " (logarithmic)"
    if xlim is not None:
        axis.set_xlim(xlim)
    if xlabel == "epoch":
        whole_numbers(axis)
    finish_axis(axis, xlabel, ylabel)
    legend_below(figure, axis, proxies)
    return figure


def latent_boxes(mean: Any, scales: Any, *, log: bool | None = None, place: int | None = None) -> Figure:
    """Boxes over all cases of the prior's mean in each coordinate, above those of its standard deviations.

    The label of the lower axis says whether it is logarithmic.

    Args:
        mean: (n, d) of the prior.
        scales: (n, d) standard deviations along its principal axes.
        log: a logarithmic axis of the standard deviations; None: where all are positive, however much they span.
        place: of the model among all that are compared, which gives the colour of the medians; None: vermilion.

    Raises:
        InputError: arrays that do not belong together.
    """
    center, spread = as_array(mean, "mean", 2), as_array(scales, "scales", 2)
    if center.shape != spread.shape or not center.size:
        raise InputError(
            f"found means {center.shape} and scales {spread.shape}, expected (n, d) both; pass one prior's"
        )
    color = RATER_COLORS[5] if place is None else model_style(place).color
    log = bool((spread > 0).all()) if log is None else log
    scale = "logarithmic" if log else "linear"
    figure = new_figure(WIDTH, 4.9)
    axes = figure.subplots(2, 1)
    names = [str(axis + 1) for axis in range(center.shape[1])]
    for axis, values, xlabel, ylabel in (
        (axes[0], center, "latent dimension", "prior mean"),
        (axes[1], spread, "principal axis", f"prior standard deviation\n({scale})"),
    ):
        axis.boxplot(
            values,
            tick_labels=names,
            showfliers=len(values) < 200,
            medianprops={"color": color, "linewidth": 2},
            flierprops={"markersize": 2, "markeredgecolor": "0.5"},
        )
        axis.locator_params(axis="y", nbins=5)
        finish_axis(axis, xlabel, ylabel)
    if log:
        log_axis(axes[1])
    axes[0].axhline(0, color="0.6", linewidth=0.8, zorder=0)
    return figure


def _lighter(color: str, share: float) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple(part + share * (1 - part) for part in to_rgb(color))
