"""``aleatoric prepare datalist``: a user's own images, listed in MONAI's datalist form with one label file per rater.

What a patch is stands in :mod:`.patches`, what the list may say in :mod:`.entries`. ``--dry-run``
reads everything and makes no data set: :mod:`.report` says what would be made and what looks wrong.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from ..prepared.preparation import EXIT_INCOMPLETE, add_output_arguments, conclude, output_options, prepare_units
from .make import make, tasks_of
from .patches import FITS, PLANES, SLICES
from .plan import DatalistOptions, plan_datalist

__all__ = ["DatalistOptions", "add_arguments", "prepare_datalist", "run"]


_OWN = (
    *("root", "patch_size", "fit", "keep_aspect", "spacing", "plane", "slices", "keep_3d"),
    *("window", "normalize", "classes", "split"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``aleatoric prepare datalist``."""
    parser.add_argument("list", metavar="LIST.json", help="MONAI datalist; 'label' holds a file per rater")
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument(
        "--dry-run", action="store_true", help="read everything, report what looks wrong, make no data set"
    )
    parser.add_argument("--root", metavar="DIR", help="where the list's paths start (default: the list's folder)")
    parser.add_argument(
        "--classes", metavar="N", help="number of classes with the background, or their names with commas between"
    )
    parser.add_argument(
        "--patch-size",
        nargs="+",
        type=int,
        metavar="N",
        help="rows and columns, slices with --keep-3d (default: 128 128)",
    )
    parser.add_argument(
        "--fit",
        choices=FITS,
        default="crop",
        help="how an image comes to that size: cut around the masks (default), resampled as a whole, or only padded",
    )
    parser.add_argument("--keep-aspect", action="store_true", help="with --fit resize: pad to the patch's aspect first")
    parser.add_argument("--spacing", type=float, metavar="MM", help="resample to this pixel size first")
    parser.add_argument("--plane", choices=PLANES, default="axial", help="slices of a volume (default: axial)")
    parser.add_argument(
        "--slices", choices=SLICES, default="foreground", help="those that a rater drew on (default), or all"
    )
    parser.add_argument("--keep-3d", action="store_true", help="patches are volumes, not slices")
    parser.add_argument(
        "--window",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="keep intensities (CT: HU); loaders map this to 0..1",
    )
    parser.add_argument(
        "--normalize",
        choices=("image", "none"),
        help="image (default without --window): each image to 0..1 by its 0.5 and 99.5 percentile",
    )
    parser.add_argument(
        "--split",
        metavar="RULE",
        help="patient, site, list (its sections and folds), or FILE.json or FILE.csv with each patient's fold "
        "(default: list where it has several sections or folds, else patient)",
    )
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """``aleatoric prepare datalist``; returns the exit code."""
    options: Any = {key: getattr(args, key) for key in _OWN}
    options |= output_options(args)
    if args.dry_run:
        from .report import dry_run, print_report

        report = dry_run(args.list, args.out, **options)
        print_report(report)
        return EXIT_INCOMPLETE if report["suspicious"] else 0
    return conclude(prepare_datalist(args.list, args.out, **options))


def prepare_datalist(
    list_path: str | os.PathLike[str], out_dir: str | os.PathLike[str], **options: Unpack[DatalistOptions]
) -> Path:
    """Write the prepared data set of a datalist.

    Args:
        list_path: LIST.json.
        out_dir: the data set; ``<out_dir>.partial`` beside it keeps finished images, so a second call goes on.
        **options: see :class:`.plan.DatalistOptions`.

    Raises:
        InputError: a mistake in the list or in the options, nothing that can be read, no space left.
    """
    plan = plan_datalist(list_path, **options)
    writer = plan.writer(out_dir)
    return prepare_units(
        writer, make, tasks_of(plan), label="images", workers=options.get("workers"), report={"notes": plan.notes}
    )
