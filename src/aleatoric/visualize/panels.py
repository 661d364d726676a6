"""What the raters drew beside what the model samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .drawing import (
    PANEL,
    Footer,
    as_array,
    bare,
    draw_raters,
    finished,
    look_at,
    new_figure,
    outline,
    rater_handles,
    say,
    window_around,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SAMPLE_COLOR = "#E69F00"


def sample_panel(
    images: Any,
    labels: Any,
    samples: Any,
    rater_valid: Any = None,
    *,
    names: Sequence[str] | None = None,
    mean: Any = None,
    std: Any = None,
    num_samples: int = 8,
    zoom: bool = True,
    simulated: bool = False,
    title: str | None = None,
) -> Figure:
    """A row per case: image; image with each rater's contour; samples; mean and standard deviation of the samples.

    Without raters (R = 0) their column is left out. Contours of several classes differ in their dashes. A mask without
    a pixel is said in words ("rater 3: none"), and so is a rater who was not asked ("rater 3: missing"). Where contours
    coincide, the first rater's shows as the outer rim.

    Args:
        images: (P, C, H, W); the first channel is shown, grey, each from its own minimum to its own maximum.
        labels: (P, R, H, W) integer class maps, 0 is background.
        samples: (P, N, H, W) integer class maps; the first ``num_samples`` are drawn, all count for mean and deviation.
        rater_valid: (P, R) bool, False where a rater is missing; ``None``: all are there.
        names: P names of the cases, written at the left.
        mean: (P, H, W) mean probability of the foreground; ``None``: share of the samples with foreground at the pixel.
        std: (P, H, W) its standard deviation over the samples; ``None``: of the samples' masks.
        num_samples: samples to draw, at most N.
        zoom: show, but for the first column, the square around all contours and samples; the first column frames it.
        simulated: say under the picture that the images are simulated.
        title: line above the picture.

    Raises:
        InputError: shapes that do not belong together.
    """
    image, label, sample = as_array(images, "images", 4), as_array(labels, "labels", 4), as_array(samples, "samples", 4)
    cases, raters = label.shape[:2]
    valid = np.ones((cases, raters), bool) if rater_valid is None else np.asarray(rater_valid, bool)
    if not image.shape[0] == cases == sample.shape[0] or not image.shape[2:] == label.shape[2:] == sample.shape[2:]:
        raise InputError(
            f"found images {image.shape}, labels {label.shape} and samples {sample.shape}, expected the same number of "
            "cases and the same height and width; pass arrays of the same cases"
        )
    if valid.shape != (cases, raters):
        raise InputError(f"found rater_valid of shape {valid.shape}, expected {(cases, raters)}; pass a flag per rater")
    if cases == 0 or sample.shape[1] == 0:
        raise InputError(f"found {cases} cases and {sample.shape[1]} samples, expected at least one; pass some to draw")
    foreground = (sample > 0).astype(np.float32)
    mean = foreground.mean(1) if mean is None else as_array(mean, "mean", 3)
    std = foreground.std(1) if std is None else as_array(std, "std", 3)

    shown = min(num_samples, sample.shape[1])
    first = 2 if raters else 1  # column of the first sample
    titles = ["image", *["raters"][:raters], *(f"sample {n + 1}" for n in range(shown)), "mean", "standard dev."]
    figure = new_figure(len(titles) * PANEL, cases * PANEL + 0.95)
    axes = figure.subplots(cases, len(titles), squeeze=False)
    for axis in axes.flat:
        bare(axis)
    for axis, text in zip(axes[0], titles):
        axis.set_title(text, fontsize=8)

    for row in range(cases):
        grey = image[row, 0].astype(np.float32)
        whole = (0, grey.shape[0], 0, grey.shape[1])
        masks = np.concatenate([label[row][valid[row]] > 0, sample[row] > 0])
        window = window_around(masks, grey.shape) if zoom else whole
        axes[row, 0].imshow(grey, cmap="gray")
        if zoom:
            _frame(axes[row, 0], window)
        if names is not None:
            axes[row, 0].set_ylabel(names[row], fontsize=7)
        for axis in axes[row, 1 : first + shown]:
            axis.imshow(grey, cmap="gray")
        if raters:
            draw_raters(axes[row, 1], label[row], valid[row])
        for axis, mask in zip(axes[row, first:], sample[row, :shown]):
            _draw_sample(axis, mask)
        means = axes[row, -2].imshow(mean[row], cmap="viridis", vmin=0.0, vmax=1.0)
        deviations = axes[row, -1].imshow(std[row], cmap="magma", vmin=0.0, vmax=0.5)
        for axis in axes[row, 1:]:
            look_at(axis, window)
    for column, drawn, ticks in ((-2, means, (0.0, 0.5, 1.0)), (-1, deviations, (0.0, 0.25, 0.5))):
        # below the last row, not part of the grid: the columns keep their rows
        bar = figure.colorbar(
            drawn, cax=axes[-1, column].inset_axes((0.0, -0.14, 1.0, 0.07)), ticks=ticks, location="bottom"
        )
        bar.ax.tick_params(labelsize=6)
    if raters:
        figure.legend(handles=rater_handles(raters), loc="lower left", ncols=8, fontsize=7, frameon=False)
    if title:
        figure.suptitle(title, fontsize=10)
    if simulated:
        figure.text(0.55, 0.012, "images are simulated", ha="center", va="bottom", fontsize=7, style="italic")
    return figure


def moments_panel(
    images: Any,
    labels: Any,
    mean: Any,
    std: Any,
    *,
    rater_valid: Any = None,
    names: Sequence[str] | None = None,
    zoom: bool = True,
    title: str | None = None,
    caption: str | None = None,
) -> Figure:
    """Mean and standard deviation of the samples beside those of the raters, a row per image (SPU-Net, Fig. 3).

    Args:
        images: (P, C, H, W); the first channel is shown.
        labels: (P, R, H, W) integer class maps.
        mean: (P, H, W) of the foreground's probability over the samples.
        std: (P, H, W) its standard deviation over them.
        rater_valid: (P, R) bool, False where a rater is missing; None: all are there.
        names: P names.
        zoom: show the square around all contours and the mean; the first column is the whole image.
        title, caption: words above and under the picture.

    Raises:
        InputError: arrays that do not belong together.
    """
    image, label = as_array(images, "images", 4), as_array(labels, "labels", 4)
    center, spread = as_array(mean, "mean", 3), as_array(std, "std", 3)
    expected = (len(image), *image.shape[2:])
    if center.shape != expected or spread.shape != expected or (len(label), *label.shape[2:]) != expected:
        raise InputError(
            f"found images {image.shape}, labels {label.shape}, mean {center.shape} and std {spread.shape}, expected "
            "the same number of images and the same height and width; pass arrays of the same images"
        )
    valid = np.ones(label.shape[:2], bool) if rater_valid is None else np.asarray(rater_valid, bool)
    titles = ["image", "raters", "raters' mean", "samples' mean", "raters' std.", "samples' std."]
    width = len(titles) * PANEL + 0.3
    footer = Footer(width, [rater_handles(label.shape[1])], caption)
    figure = new_figure(width, len(image) * PANEL + 0.6 + (0.3 if title else 0.0) + footer.height)
    panels = figure.subplots(len(image), len(titles), squeeze=False)
    for axis, text in zip(panels[0], titles):
        axis.set_title(text, fontsize=8)
    for row, axes in enumerate(panels):
        there = label[row][valid[row]] > 0
        agreed = there.mean(0) if len(there) else np.zeros(expected[1:])
        window = window_around(np.concatenate([there, center[row : row + 1] > 0.25]), (expected[1], expected[2]))
        for axis in axes:
            bare(axis)
        for axis in axes[:2]:
            axis.imshow(image[row, 0], cmap="gray")
        draw_raters(axes[1], label[row], valid[row])
        shown = {
            2: (agreed, "viridis", 1.0),
            3: (center[row], "viridis", 1.0),
            4: (np.sqrt(agreed * (1 - agreed)), "magma", 0.5),
            5: (spread[row], "magma", 0.5),
        }
        drawn = {
            column: axes[column].imshow(values, cmap=colors, vmin=0.0, vmax=top)
            for column, (values, colors, top) in shown.items()
        }
        for axis in axes[1:]:
            if zoom:
                look_at(axis, window)
        if zoom:
            _frame(axes[0], window)
        if names is not None:
            axes[0].set_ylabel(wrapped(str(names[row]), PANEL, 6, 2), fontsize=6, parse_math=False)
    for column, ticks in ((2, (0, 0.5, 1)), (3, (0, 0.5, 1)), (4, (0, 0.25, 0.5)), (5, (0, 0.25, 0.5))):
        inset = panels[-1, column].inset_axes((0.0, -0.14, 1.0, 0.07))
        bar = figure.colorbar(drawn[column], cax=inset, ticks=ticks, location="bottom")
        bar.ax.tick_params(labelsize=6)
    return finished(figure, footer, title)


def _frame(axis: Axes, window: tuple[int, int, int, int]) -> None:
    from matplotlib.patches import Rectangle

    top, bottom, left, right = window
    axis.add_patch(
        Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, color="white", lw=0.8, clip_on=False)
    )


def _draw_sample(axis: Axes, mask: np.ndarray) -> None:
    from matplotlib.colors import to_rgb

    if not mask.any():
        say(axis, "empty", 0, _SAMPLE_COLOR)
        return
    overlay = np.zeros((*mask.shape, 4))
    overlay[mask > 0] = (*to_rgb(_SAMPLE_COLOR), 0.3)
    axis.imshow(overlay)
    outline(axis, mask, _SAMPLE_COLOR, 1.0)
