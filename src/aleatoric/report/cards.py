"""A case in pictures: the raters, and below them every model on the same image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..visualize.drawing import rater_color, window_around
from . import tiles
from .collect import Evaluation
from .tiles import Tile, Window

__all__ = ["Card", "KeptCases", "Strip", "View", "card_strips"]

_LONGEST = 256  # pixels of an image's side in the page; outlines are lines and stay sharp
_WHOLE = 112
_SHOWN = 16  # samples with a tile of their own


class View(NamedTuple):
    """A part of an image that tiles are drawn on."""

    name: str  # its address in the page
    window: Window
    size: tuple[int, int]  # width and height of the whole image
    crop: str  # data URI of the window
    whole: str  # data URI of the whole image, small; "" where the window is all of it


class Strip(NamedTuple):
    """A line of tiles: the raters, or a model."""

    title: str
    run: int | None = None  # which evaluation; None: the raters
    figures: Sequence[tuple[str, str]] = ()
    tiles: Sequence[Tile] = ()
    words: str = ""  # what cannot be seen, or why there is no tile
    view: View | None = None  # None: no tiles
    defines: bool = False  # whether the view's image stands in the first tile


class Card(NamedTuple):
    """One case in pictures."""

    row: int  # of the table
    name: str
    about: str
    group: str  # "best 1", "" for one that is neither best, median nor worst
    strips: list[Strip]

    @property
    def view(self) -> View | None:
        """Of the first strip."""
        return self.strips[0].view


class KeptCases:
    """The cases of one cases.npz by row of the table.

    Args:
        evaluation: whose they are.
        place: (n,) of each of its cases the row in the table.

    Raises:
        InputError: a file that is damaged or does not belong to its table.
    """

    _NEEDED = ("position", "image", "labels", "rater_valid", "samples")

    def __init__(self, evaluation: Evaluation, place: np.ndarray) -> None:
        self.path = evaluation.npz
        position = self._read(("position",))["position"]
        if position.ndim != 1 or not np.issubdtype(position.dtype, np.integer) or (position >= len(place)).any():
            raise InputError(
                f"{self.path} names cases that {evaluation.folder / 'per_case.csv'} does not have; evaluate again."
            )
        self.at = {int(place[at]): number for number, at in enumerate(position.tolist())}  # row -> number in the file
        self.raters = 0
        self.parts: dict[str, np.ndarray] = {}

    def _read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        try:
            with np.load(self.path, allow_pickle=False) as file:  # type: ignore[arg-type]
                return {name: file[name] for name in names}
        except Exception as error:  # a damaged zip raises nearly anything
            raise InputError(
                f"{self.path} cannot be read ({type(error).__name__}: {error}), expected the arrays "
                f"{', '.join(self._NEEDED)}; evaluate again."
            ) from error

    def keep(self, rows: Iterable[int]) -> None:
        """Read these rows and forget that there are others: all pictures of many evaluations would be gigabytes."""
        self.at = {row: self.at[row] for row in rows if row in self.at}
        numbers = np.array(list(self.at.values()), int)
        self.parts = {name: part[numbers] for name, part in self._read(self._NEEDED[1:]).items()}
        image, labels, valid, samples = (self.parts[name] for name in self._NEEDED[1:])
        if not (
            image.ndim == 3
            and labels.ndim == samples.ndim == 4
            and labels.shape[2:] == samples.shape[2:] == image.shape[1:]
            and valid.shape == labels.shape[:2]
        ):
            shapes = ", ".join(f"{name} {part.shape}" for name, part in self.parts.items())
            raise InputError(
                f"{self.path} has {shapes}; expected (M, H, W), (M, R, H, W), (M, R), (M, N, H, W): evaluate again."
            )
        self.raters = labels.shape[1]
        self.at = {row: number for number, row in enumerate(self.at)}

    def case(self, row: int) -> tuple[np.ndarray, ...] | None:
        """image (H, W), labels (R, H, W), rater_valid (R,), samples (N, H, W); None for a case that is not there."""
        number = self.at.get(row)
        return None if number is None else tuple(self.parts[name][number] for name in self._NEEDED[1:])


def card_strips(row: int, parts: Mapping[int, tuple[np.ndarray, ...]], labels: Sequence[str]) -> list[Strip]:
    """The strips of one case, without figures: the raters, then each evaluation.

    Args:
        row: of the table.
        parts: evaluation -> image (H, W), labels (R, H, W), rater_valid (R,), samples (N, H, W).
        labels: names of all evaluations.
    """
    # Of a volume each model shows the slice where it and the raters draw most, so there may be several images.
    planes: list[list[int]] = []
    for number, (image, *_) in parts.items():
        same = next((plane for plane in planes if np.array_equal(parts[plane[0]][0], image)), None)
        if same is None:
            planes.append([number])
        else:
            same.append(number)
    strips: list[Strip] = []
    for place, plane in enumerate(planes):
        strips += _strips({number: parts[number] for number in plane}, labels, f"image-{row}-{place}", place > 0)
    return strips


def _strips(parts: Mapping[int, tuple[np.ndarray, ...]], names: Sequence[str], name: str, another: bool) -> list[Strip]:
    """The raters and the models on one image; ``parts``: image, labels, rater_valid and samples of each model."""
    image, labels, valid, _ = next(iter(parts.values()))
    drawn = np.concatenate([labels[valid] > 0, *(samples > 0 for *_, samples in parts.values())])
    top, bottom, left, right = window_around(drawn, image.shape, least=48)
    window, cut = Window(left, top, right - left, bottom - top), np.s_[..., top:bottom, left:right]
    height, width = image.shape
    view = View(
        name,
        window,
        (width, height),
        tiles.grey_png(image[cut], _LONGEST),
        "" if (window.width, window.height) == (width, height) else tiles.grey_png(image, _WHOLE),
    )
    labels = np.where(valid[:, None, None], labels, 0)[cut]
    samples = {number: part[-1][cut] for number, part in parts.items()}
    classes = int(max([1, labels.max(initial=1), *(part.max(initial=1) for part in samples.values())]))
    raters = [
        tiles.raters_tile(labels, valid, window, classes),
        *(tiles.map_tile(labels[valid], kind, "raters") for kind in tiles.MAPS),
        *(
            tiles.mask_tile(mask, window, f"rater {rater + 1}", rater_color(rater))
            if there
            else Tile(f"rater {rater + 1}", f"rater {rater + 1}: missing.", [], words=("missing",))
            for rater, (mask, there) in enumerate(zip(labels, valid))
        ),
    ]
    slice_of = f" on the slice that {names[next(iter(parts))]} shows" if another else ""
    strips = [Strip(f"Raters{slice_of}", tiles=raters, view=view, defines=True)]
    for number, masks in samples.items():
        shown = [
            tiles.samples_tile(masks, window),
            *(tiles.map_tile(masks, kind, "samples") for kind in tiles.MAPS),
            *(
                tiles.mask_tile(mask, window, f"sample {place}", tiles.SAMPLE_COLOR)
                for place, mask in enumerate(masks[:_SHOWN], 1)
            ),
        ]
        words = f"the first {_SHOWN} of {len(masks)} samples" if len(masks) > _SHOWN else ""
        strips.append(Strip(names[number], number, tiles=shown, words=words, view=view))
    return strips
