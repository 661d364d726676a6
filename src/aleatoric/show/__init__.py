"""``aleatoric show``: what a prepared data set holds, in numbers and in a picture."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data import PreparedDataset, load_dataset
from ..data.prepared.reading import SECTIONS, read_info
from ..errors import InputError
from ..visualize import patch_sheet, picture_format, save_figure
from .labels import LabelFigures, label_figures
from .text import describe, section_positions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LabelFigures", "add_arguments", "describe", "draw", "label_figures", "run", "spread"]

_LARGEST = 400  # patches of a picture: matplotlib draws up to 65,536 pixels a side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``aleatoric show``."""
    parser.add_argument("dataset", type=Path, metavar="DATASET_DIR", help="a prepared data set")
    parser.add_argument("--out", type=Path, metavar="PICTURE", help="default: the data set's name + .png, right here")
    parser.add_argument("--patches", type=int, default=12, metavar="N", help="to draw, at random (default: 12)")
    parser.add_argument("--section", choices=[*SECTIONS, "all"], default="all", help="(default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice (default: 0)")
    parser.add_argument("--fold", type=int, default=0, help="of training and validation (default: 0)")
    parser.add_argument("--case", nargs="+", metavar="NAME", help="draw these cases of cases.csv, of any section")
    parser.add_argument("--channel", type=int, default=0, metavar="C", help="of the images, to draw (default: 0)")
    parser.add_argument("--zoom", action="store_true", help="draw the square around all contours")


def run(args: argparse.Namespace) -> int:
    """``aleatoric show``: print the numbers, write the picture, print its path."""
    if not 1 <= args.patches <= _LARGEST:
        raise InputError(f"found --patches {args.patches}, expected 1 to {_LARGEST}; others come with another --seed")
    if args.seed < 0:
        raise InputError(f"found --seed {args.seed}, expected 0 or more; choose another one")
    read_info(args.dataset)  # before the picture: what is no data set has none
    out = args.out if args.out is not None else Path(f"{args.dataset.resolve().name}.png")
    picture_format(out)
    if args.dataset.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(
            f"found the picture {out} inside the data set {args.dataset}, expected it elsewhere; use --out"
        )
    if out.is_dir():
        raise InputError(f"found the folder {out}, expected a picture's name, for example {out / 'a.png'}")
    dataset = load_dataset(args.dataset, check_hash=False)
    channels = dataset.info["channels"]
    if not 0 <= args.channel < len(channels):
        raise InputError(
            f"found --channel {args.channel}, expected 0 to {len(channels) - 1} ({', '.join(channels)}); correct it"
        )
    if args.case:
        chosen = _named(dataset, args.case)
    else:
        chosen = spread(dataset.cases, section_positions(dataset, args.section, args.fold), args.patches, args.seed)
    for line in describe(dataset, args.section, args.fold):
        print(line)
    figure = draw(dataset, chosen, channel=args.channel, zoom=args.zoom)
    try:
        save_figure(figure, out)
    except OSError as error:
        raise InputError(
            f"the picture {out} cannot be written ({error.strerror or error}), a writable folder with space expected; "
            "name another one with --out"
        ) from error
    print(f"\npicture of {len(chosen)} patches: {out}")
    return 0


def spread(cases: Sequence[Mapping[str, str]], positions: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Up to ``count`` of the positions, at random from ``seed``, dealt from the patients in turn; ascending."""
    random = np.random.default_rng(seed)
    of_patient: dict[str, list[int]] = {}
    for position in random.permutation(positions):
        of_patient.setdefault(cases[position]["patient"], []).append(int(position))
    hands = list(of_patient.values())
    dealt = [hand[turn] for turn in range(max(map(len, hands), default=0)) for hand in hands if turn < len(hand)]
    return np.sort(np.array(dealt[:count], np.int64))


def draw(dataset: PreparedDataset, positions: np.ndarray, *, channel: int = 0, zoom: bool = False) -> Figure:
    """Those patches as :func:`.visualize.patch_sheet` shows them; black and white are what loaders map to 0 and 1."""
    low, high = dataset.intensity_window
    names = [dataset.cases[position]["case"] for position in positions]
    info = dataset.info
    shown = f", channel {info['channels'][channel]}" if len(info["channels"]) > 1 else ""
    return patch_sheet(
        [dataset.images[position] for position in positions],  # views of the files: pixels are read when drawn
        [dataset.labels[position] for position in positions],
        dataset.rater_valid[positions],
        names=names,
        classes=info["classes"],
        channel=channel,
        zoom=zoom,
        intensity_window=(low, high),
        title=f"{info.get('name', dataset.root.name)}: {len(positions)} of {len(dataset)} patches{shown}",
        caption=f"{info.get('source', '')}. Black is {low:g}, white is {high:g}.".lstrip(". "),
    )


def _named(dataset: PreparedDataset, names: Sequence[str]) -> np.ndarray:
    of_name: dict[str, list[int]] = {}
    for position, row in enumerate(dataset.cases):
        of_name.setdefault(row["case"], []).append(position)
    for name in names:
        if name not in of_name:
            close = [known for known in of_name if name in known][:3]
            close = close or difflib.get_close_matches(name, of_name, n=3, cutoff=0.3) or list(of_name)[:3]
            raise InputError(
                f"found no case {name} in {dataset.root}/cases.csv, expected one of its {len(of_name)} names; take "
                f"{' or '.join(close)} for example"
            )
    chosen = np.array([position for name in dict.fromkeys(names) for position in of_name[name]], np.int64)
    if len(chosen) > _LARGEST:
        raise InputError(f"found {len(chosen)} patches of the named cases, expected up to {_LARGEST}; name fewer")
    return chosen
