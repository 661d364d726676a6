"""Pictures of a latent space: what its axes hold and change, and how the samples look beside the raters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError
from .drawing import (
    PANEL,
    RATER_COLORS,
    Footer,
    as_array,
    bare,
    draw_raters,
    finished,
    log_axis,
    look_at,
    new_figure,
    rater_handles,
    window_around,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ScatterPanel",
    "correlation_panels",
    "freezing_curves",
    "interpolation_grid",
    "latent_axes",
]

_BLUE, _VERMILION = RATER_COLORS[6], RATER_COLORS[5]


class ScatterPanel(NamedTuple):
    """Two quantities of the same images, and how they go together."""

    xlabel: str
    ylabel: str
    x: Any  # (n,)
    y: Any  # (n,)
    r: float  # Pearson's, NaN where a quantity is constant


def latent_axes(
    images: Any,
    mean: Any,
    std: Any,
    *,
    names: Sequence[str] | None = None,
    all_mean: Any = None,
    all_std: Any = None,
    columns: int = 4,
    title: str | None = None,
    caption: str | None = None,
) -> Figure:
    """The prior of some images, mean and standard deviation of each coordinate, above those of all images.

    After SPU-Net, Fig. 4.

    Args:
        images: (P, C, H, W) those that are shown; the first channel, grey.
        mean: (P, d) of the prior.
        std: (P, d) its standard deviations.
        names: P names.
        all_mean, all_std: (M, d) of all images, for two panels of boxes below; default those that are shown.
        columns: images in a row.
        title, caption: words above and under the picture.

    Raises:
        InputError: arrays that do not belong together.
    """
    image, center, spread = as_array(images, "images", 4), as_array(mean, "mean", 2), as_array(std, "std", 2)
    if not len(image) == len(center) == len(spread) or center.shape != spread.shape or not len(image):
        raise InputError(
            f"found images {image.shape}, means {center.shape} and deviations {spread.shape}, expected (P, C, H, W), "
            "(P, d) and (P, d) of at least one image; pass arrays of the same images"
        )
    every = center if all_mean is None else as_array(all_mean, "all_mean", 2)
    widths = spread if all_std is None else as_array(all_std, "all_std", 2)
    axes_names = [str(axis + 1) for axis in range(center.shape[1])]
    columns = min(columns, len(image))
    rows = -(-len(image) // columns)
    footer = Footer(7.5, [], caption)
    figure = new_figure(max(7.0, columns * 2.4), rows * 1.35 + 2.2 + (0.3 if title else 0.0) + footer.height)
    grid = figure.add_gridspec(
        rows + 1, 2 * columns, height_ratios=[*[1.0] * rows, 1.6], width_ratios=[0.8, 1.2] * columns
    )
    low, high = (center - spread).min(), (center + spread).max()
    for row in range(rows):
        for column in range(min(columns, len(image) - row * columns)):
            number = row * columns + column
            picture = figure.add_subplot(grid[row, 2 * column])
            bare(picture)
            picture.imshow(image[number, 0], cmap="gray")
            if names is not None:
                picture.set_xlabel(wrapped(str(names[number]), 0.8, 6, 2), fontsize=6, parse_math=False)
            bars = figure.add_subplot(grid[row, 2 * column + 1])
            bars.axhline(0.0, color="0.7", linewidth=0.8)
            bars.errorbar(
                axes_names, center[number], yerr=spread[number], fmt="o", color=_BLUE, markersize=3, capsize=2
            )
            bars.set_ylim(low - 0.05 * (high - low) - 1e-6, high + 0.05 * (high - low) + 1e-6)
            _small(bars)
            if row == 0 and column == 0:
                bars.set_title("mean ± standard dev.", fontsize=7)
    left, right = grid[rows, :columns], grid[rows, columns:]
    for place, values, label, log in ((left, every, "prior mean", False), (right, widths**2, "prior variance", True)):
        axis = figure.add_subplot(place)
        axis.boxplot(
            values,
            tick_labels=axes_names,
            showfliers=len(values) < 500,
            medianprops={"color": _VERMILION},
            flierprops={"markersize": 2, "markeredgecolor": "0.5"},
        )
        if log and (values > 0).all():
            log_axis(axis)
        axis.set_xlabel("latent dimension", fontsize=8)
        axis.set_ylabel(f"{label}, {len(values)} images", fontsize=8)
        _small(axis)
    return finished(figure, footer, title)


def interpolation_grid(
    image: Any,
    probability: Any,
    values: Sequence[float],
    scales: Any,
    *,
    labels: Any = None,
    rater_valid: Any = None,
    zoom: bool = True,
    title: str | None = None,
    caption: str | None = None,
) -> Figure:
    """What is decoded as one axis of the prior moves: a row per axis, a column per position (SPU-Net, Fig. 5).

    Args:
        image: (C, H, W); its first channel stands at the left, with the raters' contours.
        probability: (A, V, H, W) of the foreground.
        values: V positions, in standard deviations from the prior's mean.
        scales: (A,) standard deviations along the axes, for the names of the rows.
        labels: (R, H, W) class maps; None: no raters.
        rater_valid: (R,) bool.
        zoom: show the square around all contours and all that is decoded.
        title, caption: words above and under the picture.

    Raises:
        InputError: arrays that do not belong together.
    """
    grey, maps = as_array(image, "image", 3)[0], as_array(probability, "probability", 4)
    spread = as_array(scales, "scales", 1)
    count, steps = maps.shape[:2]
    if maps.shape[2:] != grey.shape or (count, steps) != (len(spread), len(values)) or not count * steps:
        raise InputError(
            f"found probabilities {maps.shape} for an image {grey.shape}, {len(spread)} scales and {len(values)} "
            "values, expected (A, V, H, W), (H, W), A and V; pass arrays of one image"
        )
    drawn = np.zeros((0, *grey.shape), np.uint8) if labels is None else as_array(labels, "labels", 3)
    valid = np.ones(len(drawn), bool) if rater_valid is None else np.asarray(rater_valid, bool)
    whole = (0, grey.shape[0], 0, grey.shape[1])
    window = window_around(np.concatenate([drawn[valid] > 0, maps.reshape(-1, *grey.shape) > 0.5]), grey.shape)
    width = (steps + 1) * PANEL + 0.7
    footer = Footer(width, [rater_handles(len(drawn))], caption)
    figure = new_figure(width, count * PANEL + 0.5 + (0.3 if title else 0.0) + footer.height)
    panels = figure.subplots(count, steps + 1, squeeze=False)
    for axis in panels.flat:
        bare(axis)
        look_at(axis, window if zoom else whole)
    panels[0, 0].imshow(grey, cmap="gray")
    draw_raters(panels[0, 0], drawn, valid)
    panels[0, 0].set_title("image", fontsize=8)
    for axis in panels[1:, 0]:
        axis.set_visible(False)
    for row in range(count):
        panels[row, 1].set_ylabel(f"axis {row + 1}\nσ = {spread[row]:.3g}", fontsize=7)
        for column in range(steps):
            shown = panels[row, column + 1].imshow(maps[row, column], cmap="viridis", vmin=0.0, vmax=1.0)
    for axis, value in zip(panels[0, 1:], values):
        axis.set_title("mean" if value == 0 else f"{value:+g} σ", fontsize=8)
    for axis in panels.flat:
        look_at(axis, window if zoom else whole)  # imshow sets limits of its own
    bar = figure.colorbar(shown, ax=panels[:, 1:], shrink=min(1.0, 2.0 / count), pad=0.01, aspect=12)
    bar.ax.tick_params(labelsize=6)
    bar.set_label("probability of the foreground", fontsize=7)
    return finished(figure, footer, title)


def freezing_curves(
    smallest_first: Any, largest_first: Any, *, title: str | None = None, caption: str | None = None
) -> Figure:
    """The distance of samples to raters against the number of axes that stay at their mean (SPU-Net, Fig. 6).

    Args:
        smallest_first, largest_first: (B, d + 1) of B images, the axes frozen in that order; NaN is left out. The
            band is the standard error over the images of the difference to nothing frozen, which all n share.
        title, caption: words above and under the picture.

    Raises:
        InputError: arrays that do not belong together, or no image with a number.
    """
    curves = [as_array(values, "distances", 2) for values in (smallest_first, largest_first)]
    kept = [values[np.isfinite(values).all(1)] for values in curves]
    if curves[0].shape != curves[1].shape or not len(kept[0]) or not len(kept[1]):
        raise InputError(
            f"found distances of shapes {curves[0].shape} and {curves[1].shape}, expected (B, d + 1) both, "
            "with an image that has a rater; pass what freeze_axes gives"
        )
    footer = Footer(4.6, [], caption)
    figure = new_figure(4.8, 3.2 + (0.3 if title else 0.0) + footer.height)
    axis = figure.subplots()
    count = np.arange(kept[0].shape[1])
    for values, name, color, style in (
        (kept[0], "smallest first", _BLUE, "solid"),
        (kept[1], "largest first (control)", _VERMILION, "dashed"),
    ):
        mean = values.mean(0)
        axis.plot(count, mean, marker="o", markersize=4, color=color, linestyle=style, label=name)
        if len(values) > 1:
            error = (values - values[:, :1]).std(0, ddof=1) / np.sqrt(len(values))
            axis.fill_between(count, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
    axis.set_xticks(count)
    axis.set_xlabel("latent axes frozen at their mean", fontsize=8)
    axis.set_ylabel("EWD (1 - IoU)", fontsize=8)
    axis.legend(fontsize=7)
    _small(axis)
    return finished(figure, footer, title)


def correlation_panels(
    panels: Sequence[ScatterPanel], *, title: str | None = None, caption: str | None = None
) -> Figure:
    """Scatter plots of pairs of quantities, with Pearson's r (SPU-Net, Fig. 8).

    Raises:
        InputError: no panel.
    """
    if not panels:
        raise InputError("found no pair of quantities to draw, expected at least one; pass some")
    width = 2.9 * len(panels) + 0.2
    footer = Footer(width, [], caption)
    figure = new_figure(width, 2.8 + (0.3 if title else 0.0) + footer.height)
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        x, y = as_array(panel.x, panel.xlabel, 1), as_array(panel.y, panel.ylabel, 1)
        axis.scatter(x, y, s=10, color=_BLUE, alpha=0.6, linewidths=0)
        if np.isfinite(panel.r):
            kept = np.isfinite(x) & np.isfinite(y)
            slope, offset = np.polyfit(x[kept], y[kept], 1)
            ends = np.array([x[kept].min(), x[kept].max()])
            axis.plot(ends, slope * ends + offset, color=_VERMILION, linewidth=1.2)
            axis.set_title(f"Pearson's r = {panel.r:.2f}", fontsize=8)
        else:
            axis.set_title("no correlation: a quantity is constant", fontsize=8)
        axis.set_xlabel(panel.xlabel, fontsize=8)
        axis.set_ylabel(panel.ylabel, fontsize=8)
        axis.locator_params(axis="x", nbins=5)
        _small(axis)
    return finished(figure, footer, title)


def _small(axis: Axes) -> None:
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
