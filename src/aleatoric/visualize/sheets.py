"""What the raters drew: images, and beside each the same one under the raters' contours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError
from .drawing import (
    CLASS_STYLES,
    RATER_COLORS,
    Footer,
    as_array,
    bare,
    class_handles,
    draw_raters,
    finished,
    look_at,
    new_figure,
    rater_handles,
    window_around,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL = 1.5  # inches
_GAP = 0.12  # between two pairs, of a panel's width
_NOTE_COLOR = "#D55E00"
_FONT = 7


class _Patch(NamedTuple):
    image: np.ndarray  # (H, W)
    labels: np.ndarray  # (R, H, W)
    valid: np.ndarray  # (R,) bool
    name: str
    note: str
    window: tuple[int, int, int, int]  # top, bottom, left, right of what is shown


def patch_sheet(
    images: Any,
    labels: Any,
    rater_valid: Any = None,
    *,
    names: Sequence[str] | None = None,
    notes: Sequence[str | None] | None = None,
    columns: int = 4,
    classes: Sequence[str] | None = None,
    channel: int = 0,
    zoom: bool = False,
    intensity_window: tuple[float, float] | None = None,
    title: str | None = None,
    caption: str | None = None,
) -> Figure:
    """A grid of pairs: the image as it is, and the image with each rater's contour.

    Contours of several classes differ in their dashes. A mask without a pixel is said in words ("rater 3: none"), and
    so is a rater who was not asked ("rater 3: missing"). Where contours coincide, the first rater's shows as the outer
    rim. With more raters than colours, or more classes than dashes, these come again, and legend and caption say so. Of
    a volume one slice of the last axis is shown, the one with the most foreground of all raters together (the middle
    one where there is none); the name says which.

    Args:
        images: (P, C, *S), or P arrays (C, *S) that may differ in size; *S is (H, W) or (H, W, D).
        labels: (P, R, *S), or P arrays (R, *S), whose R may differ; integer class maps, 0 is background.
        rater_valid: (P, R) or P arrays (R,) of bool, False where a rater is missing; ``None``: all are there.
        names: P lines, above the pairs.
        notes: P lines, below the pairs in another colour: why a patch is suspicious, for instance. Empty or ``None``
            where there is nothing to say.
        columns: pairs in a row.
        classes: names of the label values 0, 1, ...; ``None``: they are numbered.
        channel: of the images, the one that is shown.
        zoom: show the square around all contours in both panels of a pair, instead of the whole image.
        intensity_window: what is black and what is white; ``None``: each image's own minimum and maximum.
        title: line above the picture.
        caption: words under the picture.

    Raises:
        InputError: shapes that do not belong together, no patch at all, no such channel.
    """
    count = len(images)
    lists = {"labels": labels, "rater_valid": rater_valid, "names": names, "notes": notes}
    for what, values in lists.items():
        if values is not None and len(values) != count:
            raise InputError(f"found {count} images and {len(values)} {what}, expected as many; pass one per patch")
    if count == 0 or columns < 1:
        raise InputError(f"found {count} patches in {columns} columns, expected one of each; pass some to draw")
    patches = [
        _patch(
            as_array(images[number], "an image"),
            as_array(labels[number], "labels"),
            None if rater_valid is None else as_array(rater_valid[number], "rater_valid", 1).astype(bool),
            "" if names is None else str(names[number]),
            "" if notes is None else notes[number] or "",
            channel,
            zoom,
        )
        for number in range(count)
    ]
    columns = min(columns, count)
    rows = -(-count // columns)
    width = columns * 2 * _PANEL + (columns - 1) * _GAP * _PANEL
    raters = max(len(patch.labels) for patch in patches)
    highest = max((int(patch.labels[patch.valid].max(initial=0)) for patch in patches), default=0)
    black, white = intensity_window or (None, None)
    footer = _footer(width, raters, highest, classes, caption)
    names_of = [wrapped(patch.name, 2 * _PANEL, _FONT, 2) for patch in patches]
    notes_of = [wrapped(patch.note, 2 * _PANEL, _FONT, 3) for patch in patches]
    lines = max(text.count("\n") + 1 if text else 0 for text in names_of)
    lines += max(text.count("\n") + 1 if text else 0 for text in notes_of)
    # Cells as high as the highest patch is at a panel's width, within reason.
    tallest = max((bottom - top) / (right - left) for top, bottom, left, right in (p.window for p in patches))
    cell = _PANEL * min(max(tallest, 0.4), 2.0) + 0.13 * lines + 0.1
    figure = new_figure(width, rows * cell + (0.3 if title else 0.0) + footer.height)

    ratios = [1.0, 1.0, *[_GAP, 1.0, 1.0] * (columns - 1)]
    grid = figure.add_gridspec(rows, len(ratios), width_ratios=ratios)
    for number, (patch, name, note) in enumerate(zip(patches, names_of, notes_of)):
        row, column = number // columns, 3 * (number % columns)
        plain, drawn = (figure.add_subplot(grid[row, column + side]) for side in (0, 1))
        for axis, anchor in ((plain, "E"), (drawn, "W")):  # where cells are broader than images, pairs stay together
            bare(axis)
            axis.imshow(patch.image, cmap="gray", vmin=black, vmax=white)
            axis.set_anchor(anchor)
        draw_raters(drawn, patch.labels, patch.valid)
        for axis in (plain, drawn):
            look_at(axis, patch.window)
        plain.set_title(name, fontsize=_FONT, loc="left", pad=2, parse_math=False)
        plain.set_xlabel(note, fontsize=_FONT, loc="left", color=_NOTE_COLOR, labelpad=2, parse_math=False)
    return finished(figure, footer, title)


def _patch(
    image: np.ndarray,
    labels: np.ndarray,
    valid: np.ndarray | None,
    name: str,
    note: str,
    channel: int,
    zoom: bool,
) -> _Patch:
    """One patch, checked; of a volume one slice."""
    called = f" of {name}" if name else ""
    if image.ndim not in (3, 4) or image.shape[1:] != labels.shape[1:] or 0 in image.shape:
        raise InputError(
            f"found an image{called} of shape {image.shape} and labels of shape {labels.shape}, expected (C, H, W) and "
            "(R, H, W) or (C, H, W, D) and (R, H, W, D); pass arrays of the same patch"
        )
    if valid is None:
        valid = np.ones(len(labels), bool)
    if valid.shape != (len(labels),):
        raise InputError(
            f"found rater_valid{called} of shape {valid.shape}, expected {(len(labels),)}; pass a flag per rater"
        )
    if not 0 <= channel < len(image):
        raise InputError(
            f"found channel {channel}, expected 0 to {len(image) - 1} for the image{called}; choose one of them"
        )
    grey = image[channel]
    if grey.ndim == 3:
        depth = grey.shape[-1]
        foreground = (labels[valid] > 0).sum(axis=(0, 1, 2))  # (D,)
        position = int(foreground.argmax()) if foreground.any() else depth // 2
        grey, labels = grey[..., position], labels[..., position]
        name = f"{name}, slice {position + 1} of {depth}".lstrip(", ")
    shape = (grey.shape[0], grey.shape[1])
    window = window_around(labels[valid], shape) if zoom else (0, shape[0], 0, shape[1])
    return _Patch(grey.astype(np.float32), labels, valid, name, note, window)


def _footer(width: float, raters: int, highest: int, classes: Sequence[str] | None, caption: str | None) -> Footer:
    names = list(classes[1:]) if classes is not None else []
    names += [f"class {value}" for value in range(len(names) + 1, highest + 1)]
    said = []
    if raters > len(RATER_COLORS):
        said.append(f"{raters} raters: colours come again after {len(RATER_COLORS)}.")
    if len(names) > len(CLASS_STYLES):
        said.append(f"{len(names)} classes: dashes come again after {len(CLASS_STYLES)}.")
    if caption:
        said.append(caption)
    return Footer(width, [rater_handles(raters), class_handles(names if len(names) > 1 else [])], " ".join(said))
