"""What pictures of several models share: a model's look, the words around the axes, the file for a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError
from .drawing import RATER_COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = [
    "MOST_MODELS",
    "WIDTH",
    "ModelStyle",
    "check_models",
    "figure_svg",
    "finish_axis",
    "legend_below",
    "line_points",
    "model_style",
    "model_styles",
    "names_above",
]

#: Models that one picture tells apart.
MOST_MODELS = 6
WIDTH = 4.8  # inches: at the width of a phone a font of 10 points is still read
_COLORS = tuple(RATER_COLORS[number] for number in (6, 5, 2, 3, 1, 0))  # on white: dark ones first
_LINES: tuple[Any, ...] = ("solid", "dashed", "dashdot", "dotted", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)))
_MARKERS = "osD^vP"
_POINTS = 200  # of a line: more make the file larger and the picture no better


class ModelStyle(NamedTuple):
    """How a model is drawn in every picture; without the colour the line and the marker still tell."""

    color: str
    line: Any
    marker: str


def model_style(number: int) -> ModelStyle:
    """Of model 0, 1, ...; after ``MOST_MODELS`` colours come again, with other lines and markers."""
    again, place = divmod(number, MOST_MODELS)
    return ModelStyle(
        _COLORS[place], _LINES[(place + again) % MOST_MODELS], _MARKERS[(place + 2 * again) % MOST_MODELS]
    )


def model_styles(names: Iterable[str], places: Mapping[str, int] | None = None) -> dict[str, ModelStyle]:
    """name -> its look.

    Args:
        names: of the models in a picture.
        places: name -> its place among all models, also those that are not in this picture, so that it looks the same
            in every one; None: the place among ``names``.

    Raises:
        InputError: a model without a place.
    """
    names = list(names)
    if places is None:
        places = {name: number for number, name in enumerate(names)}
    for name in names:
        if name not in places:
            raise InputError(f"found no place for {name}, expected one for each model; pass the places of all models")
    return {name: model_style(places[name]) for name in names}


def check_models(models: Mapping[str, Any]) -> None:
    """Raises InputError where there is no model, or more than a picture holds."""
    if not 1 <= len(models) <= MOST_MODELS:
        raise InputError(f"found {len(models)} models to draw, expected 1 to {MOST_MODELS}; leave some out")


def finish_axis(axis: Axes, xlabel: str | None, ylabel: str | None) -> None:
    """Labels that a phone shows large enough, a light grid, no frame."""
    if xlabel:
        axis.set_xlabel(xlabel, fontsize=10)
    if ylabel:
        axis.set_ylabel(ylabel, fontsize=10)
    axis.tick_params(labelsize=9)
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def names_above(axis: Axes, names: Sequence[str], height: float) -> None:
    """A row per name from the top; names stand above their rows, where long ones take no width from the picture."""
    for row, name in enumerate(names):
        axis.annotate(
            name,
            (0, row - height / 2),
            xycoords=("axes fraction", "data"),
            xytext=(2, 2),
            textcoords="offset points",
            fontsize=9.5,
            va="bottom",
            parse_math=False,
        )
    axis.set_ylim(len(names) - 0.55, -0.75)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)


def line_points(name: str, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The finite points of a line, at most ``_POINTS`` evenly chosen with both ends."""
    x, y = (np.asarray(part, dtype=float) for part in (x, y))
    if x.shape != y.shape or y.ndim != 1:
        raise InputError(f"found {x.shape} positions and {y.shape} values for {name}, expected as many; pass pairs")
    there = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if there.size > _POINTS:
        there = there[np.linspace(0, there.size - 1, _POINTS).round().astype(int)]
    return x[there], y[there]


def figure_svg(figure: Figure, name: str) -> str:
    """``figure`` as one <svg> element for a page: text as text in the reader's font, ids that begin with ``name``.

    It refers to nothing outside itself and styles nothing outside itself. The same figure gives the same text.

    Args:
        figure: what to write.
        name: of the picture in the page, letters, digits and hyphens.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.S)
    text = text.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")
    # what matplotlib's style sheet says of every element, here of this picture's alone
    text = text.replace("<svg", '<svg stroke-linejoin="round" stroke-linecap="butt"', 1)
    text = re.sub(r"<[^>]+>", lambda tag: _tag(tag.group(), name), text)
    return re.sub(r">\s*\n\s*<", ">\n<", text).strip()


def _tag(tag: str, name: str) -> str:
    """An element's tag with its ids told from other pictures', in any font, with numbers to a hundredth of a point."""
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"font-family: [^;\"]+", "font-family: sans-serif", re.sub(r"\s*\n\s*", " ", tag))
    tag = re.sub(r"(font: (?:[a-z]+ )*[\d.]+px) [^;\"]+", r"\1 sans-serif", tag)  # as older versions write it
    return re.sub(r"(?<=[\d])\.\d{3,}(?=[^\d])", lambda digits: f"{float(digits.group()):.2f}"[1:], tag)


def legend_below(figure: Figure, axis: Axes, others: Sequence[Line2D] = ()) -> None:
    """The lines' names under the picture, where they cover nothing; ``others`` stand for what has no label itself."""
    handles, names = axis.get_legend_handles_labels()
    handles, names = [*handles, *others], [*names, *(str(line.get_label()) for line in others)]
    columns = 2 if max(map(len, names)) < 24 else 1
    legend = figure.legend(
        handles, names, loc="outside lower center", ncols=columns, fontsize=9, frameon=False, handlelength=3.2
    )
    for text in legend.get_texts():  # names of models, as they are
        text.set_parse_math(False)
