"""What all pictures share: figures, colours, contours, words in panels, legends, the file at the end."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

#: Okabe and Ito's palette, those that stand out on grey first.
RATER_COLORS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
CLASS_STYLES = ("solid", "dashed", "dotted", "dashdot")
PANEL = 1.25  # inches
_LINES = 6  # words below each other that a panel holds


def picture_format(path: str | os.PathLike[str]) -> str:
    """The format that the suffix of ``path`` names, ``"png"`` for instance.

    Raises:
        InputError: a suffix that names no format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    form = Path(path).suffix[1:].lower()
    known = FigureCanvasAgg.get_supported_filetypes()
    if form not in known:
        raise InputError(
            f"found the picture name {Path(path).name}, expected one of {', '.join(sorted(known))}; name it .png"
        )
    return form


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
    target, form = Path(path), picture_format(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        figure.savefig(part, format=form, dpi=dpi)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def as_array(value: Any, name: str, axes: int | None = None) -> np.ndarray:
    """NumPy view of an array or tensor, with the expected number of axes if that is given."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    array = np.asarray(value)
    if axes is not None and array.ndim != axes:
        raise InputError(f"found {name} of shape {array.shape}, expected {axes} axes; see sample_panel for their order")
    return array


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches that no window owns."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr,call-arg]
    return figure


def bare(axis: Axes) -> None:
    """No ticks and no frame: a panel that shows an image."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def log_axis(axis: Axes, most: int = 5, whole: bool = False) -> None:
    """Make the y axis of what is drawn logarithmic, with few and plain tick labels, all of one font size.

    Args:
        axis: all is drawn in it already; later data may lie outside.
        most: ticks.
        whole: no ticks between whole numbers, for counts.
    """
    from matplotlib.ticker import NullLocator

    axis.set_yscale("log")
    axis.yaxis.set_minor_locator(NullLocator())
    ticks = log_ticks(*axis.get_ylim(), most, whole)
    axis.set_yticks(ticks, log_labels(ticks))


def log_ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """At most ``most`` round values from ``low`` to ``high``, both positive, that lie apart on a logarithmic axis."""
    from matplotlib.ticker import MaxNLocator

    def inside(values: Sequence[float]) -> list[float]:
        fits = [value for value in values if low <= value * (1 + 1e-9) and value * (1 - 1e-9) <= high]
        return [value for value in fits if not whole or (value >= 1 and value == round(value))]

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine, middle, coarse = (
        inside([digit * 10.0**power for power in powers for digit in digits]) for digits in ((1, 2, 5), (1, 3), (1,))
    )
    if len(fine) < 3 and high < 5 * low:  # less than a decade: even steps lie apart, too
        even = MaxNLocator(most, integer=whole, min_n_ticks=1, steps=[1, 2, 5, 10]).tick_values(low, high)
        return max(fine, inside([float(value) for value in even])[-most:], key=len)
    for ticks in (fine, middle):
        if len(ticks) <= most:
            return ticks
    return coarse[:: -(-len(coarse) // most)]


def log_labels(ticks: Sequence[float]) -> list[str]:
    """Plain numbers; where one would be long, powers of ten for all."""
    if not ticks or (max(ticks) < 1e6 and min(ticks) >= 1e-4):
        return [f"{tick:,g}" for tick in ticks]
    labels = []
    for tick in ticks:
        power = math.floor(math.log10(tick) + 1e-9)
        digits = f"{tick / 10.0**power:g}"
        raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        labels.append(("" if digits == "1" else f"{digits}·") + f"10{raised}")
    return labels


def whole_numbers(axis: Axes) -> None:
    """Ticks of the x axis at whole numbers only: what it counts has no halves."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def window_around(masks: np.ndarray, shape: tuple[int, ...], least: int = 40) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the square around all masks (M, H, W) with a margin.

    It measures ``least`` pixels or more, and is no square where the image is too small for one. Without a pixel in any
    mask it is the whole image.
    """
    height, width = shape
    union = np.any(masks > 0, axis=0)
    if not union.any():
        return 0, height, 0, width
    rows, columns = np.flatnonzero(union.any(1)), np.flatnonzero(union.any(0))
    side = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 13
    high, wide = (min(max(side, least), length) for length in (height, width))
    top = int(np.clip((rows[0] + rows[-1] + 1 - high) // 2, 0, height - high))
    left = int(np.clip((columns[0] + columns[-1] + 1 - wide) // 2, 0, width - wide))
    return top, top + high, left, left + wide


def look_at(axis: Axes, window: tuple[int, int, int, int]) -> None:
    """Show the window only."""
    top, bottom, left, right = window
    axis.set(xlim=(left - 0.5, right - 0.5), ylim=(bottom - 0.5, top - 0.5))


def outline(axis: Axes, mask: np.ndarray, color: str, width: float) -> None:
    """Contour of each class of a mask; a rim of background closes contours at the image's edge."""
    padded = np.pad(mask, 1)
    y, x = np.arange(padded.shape[0]) - 1, np.arange(padded.shape[1]) - 1
    for value in np.unique(mask[mask > 0]):
        inside = (padded == value).astype(float)
        style = CLASS_STYLES[(int(value) - 1) % len(CLASS_STYLES)]
        axis.contour(x, y, inside, levels=[0.5], colors=[color], linewidths=width, linestyles=style)


def rater_color(rater: int) -> str:
    """Colour of rater 0, 1, ...; colours come again when there are more raters than colours."""
    return RATER_COLORS[rater % len(RATER_COLORS)]


def draw_raters(axis: Axes, labels: np.ndarray, valid: np.ndarray) -> None:
    """Contours of the raters' class maps (R, H, W); in words who drew nothing and who is missing (``valid`` (R,))."""
    said: list[tuple[int, str]] = []
    for rater, (mask, there) in enumerate(zip(labels, valid)):
        if there and mask.any():
            # Thinner for every next rater: where contours coincide, the first one's shows as the outer rim.
            outline(axis, mask, rater_color(rater), min(1.0 + 0.7 * (len(labels) - 1 - rater), 3.1))
        else:
            said.append((rater, "none" if there else "missing"))
    if len(said) <= _LINES:
        for line, (rater, word) in enumerate(said):
            say(axis, f"rater {rater + 1}: {word}", line, rater_color(rater))
        return
    lines: list[str] = []
    for word in ("none", "missing"):
        numbers = [str(rater + 1) for rater, which in said if which == word]
        if numbers:
            lines += textwrap.wrap(f"{word}: {len(numbers)} raters ({', '.join(numbers)})", 30, max_lines=_LINES // 2)
    for line, text in enumerate(lines):
        say(axis, text, line, "white")


def say(axis: Axes, text: str, line: int, color: str) -> None:
    """A word in the panel's upper left, readable on any grey."""
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import withStroke

    luminance = float(np.dot(to_rgb(color), (0.2126, 0.7152, 0.0722)))
    axis.text(
        0.04,
        0.96 - 0.13 * line,
        text,
        transform=axis.transAxes,
        color=color,
        fontsize=6,
        va="top",
        path_effects=[withStroke(linewidth=1.6, foreground="black" if luminance > 0.4 else "white")],
    )


def rater_handles(raters: int) -> list[Line2D]:
    """A legend's lines, one per colour; raters who share a colour share the line."""
    from matplotlib.lines import Line2D

    handles = []
    for first in range(min(raters, len(RATER_COLORS))):
        numbers = [str(rater + 1) for rater in range(first, raters, len(RATER_COLORS))]
        numbers[3:] = ["..."] if len(numbers) > 3 else []
        label = f"rater{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
        handles.append(Line2D([], [], color=rater_color(first), linewidth=2, label=label))
    return handles


def class_handles(names: Sequence[str]) -> list[Line2D]:
    """A legend's lines, one per dash; ``names`` of the foreground classes. Classes who share a dash share the line."""
    from matplotlib.lines import Line2D

    steps = len(CLASS_STYLES)
    return [
        Line2D([], [], color="black", linewidth=1.2, linestyle=style, label=", ".join(names[number::steps]))
        for number, style in enumerate(CLASS_STYLES[: len(names)])
    ]


class Footer:
    """Legends below each other and a line of words, in a strip of its own under the panels.

    Args:
        width: of the figure, inches.
        legends: the lines of each legend.
        caption: words under them.
    """

    _ROW = 0.17  # inches

    def __init__(self, width: float, legends: Sequence[Sequence[Line2D]], caption: str | None) -> None:
        self.legends = []  # (handles, columns, rows)
        for handles in filter(None, legends):
            broadest = 0.5 + 0.065 * max(len(str(handle.get_label())) for handle in handles)
            columns = min(len(handles), max(1, int(width / broadest)))
            self.legends.append((handles, columns, -(-len(handles) // columns)))
        self.words = wrapped(caption, width, 7, 6) if caption else ""
        lines = sum(rows for *_, rows in self.legends) + (self.words.count("\n") + 1 if self.words else 0)
        self.height = (lines + 0.5) * self._ROW if lines else 0.0

    def draw(self, figure: Figure) -> None:
        """Put it under ``figure``, which is high enough for it, and keep the panels out of it."""
        total = figure.get_size_inches()[1]
        figure.get_layout_engine().set(rect=(0, self.height / total, 1, 1 - self.height / total))  # type: ignore[union-attr,call-arg]
        top = self.height - 0.04
        for handles, columns, rows in self.legends:
            legend = figure.legend(
                handles=handles,
                loc="upper left",
                bbox_to_anchor=(0.0, top / total),
                ncols=columns,
                fontsize=7,
                frameon=False,
                borderpad=0.1,
                labelspacing=0.3,
            )
            for text in legend.get_texts():  # names of classes, as they are
                text.set_parse_math(False)
            top -= rows * self._ROW
        if self.words:
            x = 0.06 / figure.get_size_inches()[0]
            figure.text(
                x, (top - 0.02) / total, self.words, ha="left", va="top", fontsize=7, style="italic", parse_math=False
            )


def wrapped(text: str, width: float, size: float, lines: int) -> str:
    """``text`` in lines of at most ``width`` inches at a font of ``size`` points, cut off after so many lines."""
    return textwrap.fill(text, max(8, int(width * 72 / (0.56 * size))), max_lines=lines, placeholder=" ...")


def finished(figure: Figure, footer: Footer, title: str | None) -> Figure:
    """The figure with its title above and its footer below."""
    if title:
        figure.suptitle(title, fontsize=10, parse_math=False)
    footer.draw(figure)
    return figure
