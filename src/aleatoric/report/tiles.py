"""Small pictures of one case: outlines as SVG paths, images and maps as PNG in data URIs."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..visualize.drawing import CLASS_STYLES, rater_color

__all__ = [
    "MAPS",
    "SAMPLE_COLOR",
    "Outline",
    "Tile",
    "Window",
    "gradient",
    "grey_png",
    "legend",
    "map_tile",
    "mask_tile",
    "outlines",
    "rater_dash",
    "raters_tile",
    "samples_tile",
]

SAMPLE_COLOR = "#E69F00"
#: What is mapped -> matplotlib's colours and the value that the last of them stands for; they start at 0.
MAPS = {"mean": ("viridis", 1.0), "deviation": ("magma", 0.5)}
# Characters of the lines of one mask, and of all samples: thousands of specks are smaller, and as clear, as an image.
_LONGEST_LINE, _LONGEST_LINES = 8_000, 32_000
_DASHES = {"solid": "", "dashed": "5 3", "dotted": "1.5 2.5", "dashdot": "7 3 1.5 3"}


class Window(NamedTuple):
    """A rectangle of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


class Outline(NamedTuple):
    """A closed line of an SVG: where it runs (pixels of the whole image) and how it looks (screen pixels)."""

    path: str
    color: str
    width: float
    dash: str = ""
    fill: float = 0.0  # opacity of what it encloses


class Tile(NamedTuple):
    """One small picture."""

    title: str
    alt: str
    outlines: list[Outline]  # over the case's image
    map: str = ""  # data URI of what is shown instead of the image
    overlay: str = ""  # data URI of what is shown over the image, where lines would be too many
    words: tuple[str, ...] = ()


def grey_png(image: np.ndarray, longest: int) -> str:
    """Data URI of a grey image (H, W) uint8, made smaller where a side is longer than ``longest`` pixels."""
    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.uint8))
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return _png(picture)


@functools.cache
def color_map(name: str) -> np.ndarray:
    """(256, 3) uint8, the colours of one of :data:`MAPS`."""
    from matplotlib import colormaps

    return (colormaps[MAPS[name][0]](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def gradient(name: str) -> list[str]:
    """Nine colours of a map, lowest first, for the bar of a legend."""
    return [
        f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in color_map(name)[np.linspace(0, 255, 9).astype(int)]
    ]


def _map_png(values: np.ndarray, name: str) -> str:
    """Data URI of values (H, W) in the colours of a map; of at most 256 that differ, as of so many masks."""
    levels, which = np.unique(values, return_inverse=True)
    colors = color_map(name)[np.clip(levels / MAPS[name][1] * 255, 0, 255).round().astype(int)]
    picture = Image.fromarray(which.reshape(values.shape).astype(np.uint8))
    picture.putpalette(colors.tobytes())  # turns grey levels into indices
    return _png(picture)


def overlay_png(share: np.ndarray, color: str) -> str:
    """Data URI of a colour that covers the more of an image the higher ``share`` (H, W), 0 to 1, is."""
    levels, which = np.unique(share, return_inverse=True)
    picture = Image.fromarray(which.reshape(share.shape).astype(np.uint8))
    picture.putpalette(bytes.fromhex(color.removeprefix("#")) * len(levels))
    return _png(picture, transparency=(levels * 255 * 0.6).round().astype(np.uint8).tobytes())


def _png(picture: Image.Image, **options: bytes) -> str:
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True, **options)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def outlines(mask: np.ndarray, corner: tuple[int, int], color: str, width: float, fill: float = 0.0) -> list[Outline]:
    """A line around each class of a class map.

    Args:
        mask: (H, W) integer, 0 is background.
        corner: column and row of its upper left pixel in the image; pixel (row, column) covers the unit square there.
        color: of the line.
        width: of the line, screen pixels.
        fill: opacity of what it encloses.

    Returns:
        one line per class, dashed by class; nothing for an empty mask.
    """
    from skimage.measure import find_contours

    padded = np.pad(mask, 1)  # closes what touches the edge
    lines = []
    for value in np.unique(mask[mask > 0]):
        parts = [_path(part, corner) for part in find_contours((padded == value).astype(np.float32), 0.5)]
        dash = _DASHES[CLASS_STYLES[(int(value) - 1) % len(CLASS_STYLES)]]
        lines.append(Outline("".join(parts), color, width, dash, fill))
    return lines


def _path(points: np.ndarray, corner: tuple[int, int]) -> str:
    """A closed contour (P, 2) of rows and columns in a padded mask as an SVG path, without points on straight lines."""
    points = points[:-1]  # the last is the first
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    corners = points[np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9]
    xs, ys = corners[:, 1] - 0.5 + corner[0], corners[:, 0] - 0.5 + corner[1]
    return "M" + " ".join(f"{x:g},{y:g}" for x, y in zip(xs, ys)) + "Z"


def rater_dash(rater: int) -> str:
    """Dash of a rater's line, so that who does not see the colour can tell it; used where there is one class."""
    return list(_DASHES.values())[rater % len(_DASHES)]


def raters_tile(labels: np.ndarray, valid: np.ndarray, window: Window, classes: int) -> Tile:
    """All raters' lines over the image; ``labels`` (R, H, W) of the window, ``valid`` (R,)."""
    lines: list[Outline] = []
    without: dict[str, list[str]] = {}
    for rater, (mask, there) in enumerate(zip(labels, valid)):
        # Thinner for every next rater: where lines coincide, the first one's shows as the outer rim.
        width = min(1.4 + 0.7 * (len(labels) - 1 - rater), 3.5)
        drawn = outlines(mask, window[:2], rater_color(rater), width) if there else []
        if classes == 1:
            drawn = [line._replace(dash=rater_dash(rater)) for line in drawn]
        lines += drawn
        if not drawn:
            without.setdefault("nothing" if there else "missing", []).append(str(rater + 1))
    words = [f"{what}: {', '.join(who)}" for what, who in without.items()]
    alt = f"Outlines of {int(valid.sum())} raters on the image"
    return Tile("raters", alt + (f" ({', '.join(words)})." if words else "."), lines, words=tuple(words))


def mask_tile(mask: np.ndarray, window: Window, title: str, color: str) -> Tile:
    """One mask (H, W) of the window, filled, over the image."""
    lines = outlines(mask, window[:2], color, 1.6, fill=0.25)
    pixels = int((mask > 0).sum())
    alt = f"{title}: {pixels} pixels." if pixels else f"{title}: nothing drawn."
    if _length(lines) > _LONGEST_LINE:
        return Tile(title, alt, [], overlay=overlay_png((mask > 0).astype(float), color))
    return Tile(title, alt, lines, words=() if pixels else ("nothing",))


def samples_tile(samples: np.ndarray, window: Window) -> Tile:
    """The lines of all samples (N, H, W) of the window over the image."""
    lines = [line for mask in samples for line in outlines(mask, window[:2], SAMPLE_COLOR, 0.9)]
    empty = int((samples == 0).all((1, 2)).sum())
    words = (f"{empty} of {len(samples)} empty",) if empty else ()
    alt = f"Outlines of {len(samples)} samples on the image, {empty} of them empty."
    if _length(lines) > _LONGEST_LINES:
        alt = (
            f"Areas of {len(samples)} samples on the image, {empty} of them empty; the more cover a pixel, the denser."
        )
        return Tile("all samples", alt, [], "", overlay_png((samples > 0).mean(0), SAMPLE_COLOR), words)
    return Tile("all samples", alt, lines, words=words)


def _length(lines: Sequence[Outline]) -> int:
    return sum(len(line.path) for line in lines)


def map_tile(masks: np.ndarray, name: str, whose: str) -> Tile:
    """Mean or standard deviation of the foreground of masks (M, H, W), pixel by pixel."""
    inside = masks > 0
    if not len(inside):
        return Tile(name, f"No {name} of the {whose}: there are none.", [], words=("none",))
    share = inside.mean(0)
    values = share if name == "mean" else np.sqrt(share * (1 - share))
    title = {"mean": "mean", "deviation": "std. deviation"}[name]
    return Tile(title, f"{title} of the {whose}, highest {values.max():.2f}.", [], _map_png(values, name))


def legend(raters: int) -> Sequence[Outline]:
    """A line per rater, for the legend (100 wide)."""
    return [Outline("M2,6 34,6", rater_color(rater), 3.0, rater_dash(rater)) for rater in range(raters)]
