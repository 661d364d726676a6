"""Pictures: what the raters drew beside what the model samples, and how the training went.

Each function returns a ``matplotlib.figure.Figure`` that no window owns (matplotlib's global state and backend stay as
they are); :func:`save_figure` writes it. Colours are Okabe and Ito's, which the colour-blind tell apart, and
perceptually uniform maps. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["RATER_COLORS", "sample_panel", "save_figure", "training_curves"]

#: Okabe and Ito's palette, those that stand out on grey first.
RATER_COLORS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
_SAMPLE_COLOR = "#E69F00"
_CLASS_STYLES = ("solid", "dashed", "dotted", "dashdot")
_PANEL = 1.25  # inches


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
    image, label, sample = _array(images, 4, "images"), _array(labels, 4, "labels"), _array(samples, 4, "samples")
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
    mean = foreground.mean(1) if mean is None else _array(mean, 3, "mean")
    std = foreground.std(1) if std is None else _array(std, 3, "std")

    shown = min(num_samples, sample.shape[1])
    first = 2 if raters else 1  # column of the first sample
    titles = ["image", *["raters"][:raters], *(f"sample {n + 1}" for n in range(shown)), "mean", "standard dev."]
    figure = _figure(len(titles) * _PANEL, cases * _PANEL + 0.95)
    axes = figure.subplots(cases, len(titles), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, text in zip(axes[0], titles):
        axis.set_title(text, fontsize=8)

    for row in range(cases):
        grey = image[row, 0].astype(np.float32)
        whole = (0, grey.shape[0], 0, grey.shape[1])
        window = _window(label[row][valid[row]], sample[row], grey.shape) if zoom else whole
        axes[row, 0].imshow(grey, cmap="gray")
        if zoom:
            _frame(axes[row, 0], window)
        if names is not None:
            axes[row, 0].set_ylabel(names[row], fontsize=7)
        for axis in axes[row, 1 : first + shown]:
            axis.imshow(grey, cmap="gray")
        if raters:
            _draw_raters(axes[row, 1], label[row], valid[row])
        for axis, mask in zip(axes[row, first:], sample[row, :shown]):
            _draw_sample(axis, mask)
        means = axes[row, -2].imshow(mean[row], cmap="viridis", vmin=0.0, vmax=1.0)
        deviations = axes[row, -1].imshow(std[row], cmap="magma", vmin=0.0, vmax=0.5)
        top, bottom, left, right = window
        for axis in axes[row, 1:]:
            axis.set(xlim=(left - 0.5, right - 0.5), ylim=(bottom - 0.5, top - 0.5))
    for column, drawn, ticks in ((-2, means, (0.0, 0.5, 1.0)), (-1, deviations, (0.0, 0.25, 0.5))):
        # below the last row, not part of the grid: the columns keep their rows
        bar = figure.colorbar(
            drawn, cax=axes[-1, column].inset_axes((0.0, -0.14, 1.0, 0.07)), ticks=ticks, location="bottom"
        )
        bar.ax.tick_params(labelsize=6)
    if raters:
        _legend(figure, raters)
    _words(figure, title, "images are simulated" if simulated else None)
    return figure


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
    figure = _figure(3.4 * columns, 2.3 * rows + 0.4)
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
            style = _CLASS_STYLES[number % len(_CLASS_STYLES)]
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
    _words(figure, title, None)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> Path:
    """Write ``figure`` whole or not at all; folders are made, an older picture is replaced.

    Args:
        figure: what to write.
        path: file; its suffix chooses the format (png, pdf, svg ...).
        dpi: pixels per inch.

    Returns:
        the path.

    Raises:
        InputError: a suffix that names no format.
    """
    target = Path(path)
    form = target.suffix[1:].lower()
    known = figure.canvas.get_supported_filetypes()
    if form not in known:
        raise InputError(
            f"found the picture name {target.name}, expected one of {', '.join(sorted(known))}; name it .png"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        figure.savefig(part, format=form, dpi=dpi)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _array(value: Any, axes: int, name: str) -> np.ndarray:
    """NumPy view of an array or tensor with the expected number of axes."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.ndim != axes:
        raise InputError(f"found {name} of shape {array.shape}, expected {axes} axes; see sample_panel for their order")
    return array


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


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr,call-arg]
    return figure


def _window(
    labels: np.ndarray, samples: np.ndarray, shape: tuple[int, ...], least: int = 40
) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the square around every mask with a margin, ``least`` pixels or more."""
    height, width = shape
    union = np.any(labels > 0, axis=0) | np.any(samples > 0, axis=0)
    if not union.any():
        return 0, height, 0, width
    rows, columns = np.flatnonzero(union.any(1)), np.flatnonzero(union.any(0))
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 13
    side = int(min(max(side, least), height, width))
    top = int(np.clip((rows[0] + rows[-1] + 1 - side) // 2, 0, height - side))
    left = int(np.clip((columns[0] + columns[-1] + 1 - side) // 2, 0, width - side))
    return top, top + side, left, left + side


def _frame(axis: Axes, window: tuple[int, int, int, int]) -> None:
    from matplotlib.patches import Rectangle

    top, bottom, left, right = window
    axis.add_patch(
        Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, color="white", lw=0.8, clip_on=False)
    )


def _contours(axis: Axes, mask: np.ndarray, color: str, width: float) -> None:
    """Outline of each class of a mask; a rim of background closes outlines at the image's edge."""
    padded = np.pad(mask, 1)
    y, x = np.arange(padded.shape[0]) - 1, np.arange(padded.shape[1]) - 1
    for value in np.unique(mask[mask > 0]):
        style = _CLASS_STYLES[(int(value) - 1) % len(_CLASS_STYLES)]
        inside = (padded == value).astype(float)
        axis.contour(x, y, inside, levels=[0.5], colors=[color], linewidths=width, linestyles=style)


def _draw_raters(axis: Axes, labels: np.ndarray, valid: np.ndarray) -> None:
    said = []
    for rater, (mask, there) in enumerate(zip(labels, valid)):
        if there and mask.any():
            width = 1.0 + 0.7 * (len(labels) - 1 - rater)
            _contours(axis, mask, RATER_COLORS[rater % len(RATER_COLORS)], min(width, 3.1))
        else:
            said.append((rater, "none" if there else "missing"))
    for line, (rater, word) in enumerate(said):
        _say(axis, f"rater {rater + 1}: {word}", line, RATER_COLORS[rater % len(RATER_COLORS)])


def _draw_sample(axis: Axes, mask: np.ndarray) -> None:
    from matplotlib.colors import to_rgb

    if not mask.any():
        _say(axis, "empty", 0, _SAMPLE_COLOR)
        return
    overlay = np.zeros((*mask.shape, 4))
    overlay[mask > 0] = (*to_rgb(_SAMPLE_COLOR), 0.3)
    axis.imshow(overlay)
    _contours(axis, mask, _SAMPLE_COLOR, 1.0)


def _say(axis: Axes, text: str, line: int, color: str) -> None:
    """A word in the panel's upper left, readable on any grey."""
    from matplotlib.patheffects import withStroke

    axis.text(
        0.04,
        0.96 - 0.13 * line,
        text,
        transform=axis.transAxes,
        color=color,
        fontsize=6,
        va="top",
        path_effects=[withStroke(linewidth=1.6, foreground="black")],
    )


def _legend(figure: Figure, raters: int) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=RATER_COLORS[rater % len(RATER_COLORS)], linewidth=2, label=f"rater {rater + 1}")
        for rater in range(raters)
    ]
    figure.legend(handles=lines, loc="lower left", ncols=min(raters, 8), fontsize=7, frameon=False)


def _words(figure: Figure, title: str | None, caption: str | None) -> None:
    if title:
        figure.suptitle(title, fontsize=10)
    if caption:
        figure.text(0.55, 0.012, caption, ha="center", va="bottom", fontsize=7, style="italic")
