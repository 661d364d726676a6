"""``aleatoric prepare qubiq``: one task of the QUBIQ challenge (2020 or 2021) to a prepared data set.

The rule:

- A case is a folder ``caseN`` or ``caseN-M`` (:mod:`.tree`); its rater r is the file ``taskTT_segRR``,
  ``caseN_taskTT_segRR`` or, for task 1, ``caseN_segRR``. A file that is not there, cannot be read, or has another size
  than its image is no opinion (``rater_valid`` false); a file in which nothing is drawn is one (an empty mask, true).
- 2D tasks: a patch per case. Pancreas and pancreatic lesion are volumes: a patch per slice on which a rater drew.
- ``--fit resize``: the whole image becomes 128 x 128, each axis scaled on its own; linear, blurred before it shrinks. A
  mask has the pixels of which more than half is drawn (:func:`.pixels.resize_mask`). ``--fit crop``: 128 x 128
  pixels of the file's own around the mean centroid of the masks that are not empty, shifted back inside, as for LIDC.
  The default is what the cSAE paper says (appendix A): a crop for pancreas, else the image resized.
- CT keeps its HU (int16, at least -1024); loaders map -160..240 HU to [0, 1]. MR becomes [0, 1] (float32), for each
  image and channel the 0.5th to the 99.5th percentile.
- Rows are the array's axis 0 and columns its axis 1 as nibabel reads it; of a volume, axes 1 and 2.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import Unpack

from ...errors import InputError
from ..prepared.patching import PERCENTILES
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
from ..prepared.splits import TEST, FirstSplit, GivenSplit, Split
from ..prepared.writer import PreparedDatasetWriter
from .pixels import (
    as_planes,
    crop,
    read_nifti,
    resize_image,
    resize_mask,
    to_mask,
    unit_range,
    window_at,
)
from .tree import TASKS, QubiqCase, QubiqTask, find_cases

__all__ = ["FITS", "HU_WINDOW", "SPLITS", "add_arguments", "prepare_qubiq", "run"]

HU_WINDOW = (-160.0, 240.0)  # soft tissue of the abdomen: level 40, width 400
LOWEST_HU = -1024.0  # the scanners' padding goes further down
FITS = ("crop", "resize")
SPLITS = ("first", "challenge", "random")


class _CaseTask(NamedTuple):
    case: QubiqCase
    task: QubiqTask
    fit: str
    size: int
    window: tuple[float, float] | None  # None: the CT files must hold HU


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``aleatoric prepare qubiq``."""
    parser.add_argument(
        "root", metavar="ROOT", help="folder with QUBIQ's folders as they were unpacked, or one of them"
    )
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument("--task", required=True, choices=list(TASKS), help="which of the nine tasks")
    parser.add_argument(
        "--fit",
        choices=FITS,
        help="crop around the raters' centre, or resize the whole image; default: crop for pancreas, else resize",
    )
    parser.add_argument("--size", type=int, default=128, metavar="PIXELS", help="side of a patch (default: 128)")
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="CT only: what becomes 0 and 1, in the files' own units (default: -160 240, HU)",
    )
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="first",
        help="who is for testing: the first patients (default, as published), the challenge's Validation cases, or "
        "patients drawn at random",
    )
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """``aleatoric prepare qubiq``; returns the exit code."""
    out = prepare_qubiq(
        args.root,
        args.out,
        task=args.task,
        fit=args.fit,
        size=args.size,
        window=args.window,
        split=args.split,
        **output_options(args),
    )
    return conclude(out)


def prepare_qubiq(
    root: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    task: str,
    fit: str | None = None,
    size: int = 128,
    window: tuple[float, float] | None = None,
    split: str = "first",
    **output: Unpack[OutputOptions],
) -> Path:
    """Write the prepared data set of one task.

    Args:
        root: where the challenge's folders lie, or one of them.
        out_dir: the data set; ``<out_dir>.partial`` beside it keeps finished cases, so a second call goes on.
        task: a key of :data:`.tree.TASKS`.
        fit: ``"crop"``, ``"resize"`` or ``None`` for the papers' choice.
        size: rows and columns of a patch.
        window: (low, high) of the CT tasks, where the files hold something else than HU.
        split: ``"first"`` (sorted patients, the first are for testing), ``"challenge"`` (Validation is for testing) or
            ``"random"``.
        **output: see :class:`.prepared.preparation.OutputOptions`.

    Raises:
        InputError: a bad option; no such folder; no case of the task, or cases of two releases; nothing readable.
    """
    cases = find_cases(root, task)
    what = TASKS[task]
    fit = fit or what.fit
    if fit not in FITS or split not in SPLITS:
        raise InputError(
            f"fit {fit!r} and split {split!r} found, one of {', '.join(FITS)} and of {', '.join(SPLITS)} expected; "
            "correct them."
        )
    if not 16 <= size <= 1024:
        raise InputError(f"patches of {size} pixels found, 16 to 1024 expected; --size 128 is what the papers use.")
    if window is not None and what.modality != "CT":
        raise InputError(f"a window for {task} found, which is MR and has no fixed units; leave out --window.")
    window = None if window is None else (float(window[0]), float(window[1]))
    low, high = (0.0, 1.0) if what.modality == "MR" else window or HU_WINDOW
    writer = PreparedDatasetWriter(
        out_dir,
        name=f"qubiq-{task}",
        source=f"QUBIQ challenge, {what.dataset}, task {what.number}: research use only",
        options={
            "task": task,
            "fit": fit,
            "size": size,
            "window": window,
            "percentiles": PERCENTILES if what.modality == "MR" else None,
            "split": split,
        },
        channels=list(what.channels),
        classes=["background", what.structure],
        raters=what.raters,
        intensity_window=(low, high),
        # whole units are fine enough for HU, not for a file scaled to 0..1
        image_dtype="int16" if what.modality == "CT" and high - low >= 100 else "float32",
        patch_size=(size, size),
        origin=root,
        split=_split(split, cases, output),
        **writer_options(output),
    )
    count = Counter(case.origin or "of unknown origin" for case in cases)
    tasks = {case.name: _CaseTask(case, what, fit, size, window) for case in cases}
    report = {
        "cases": dict(count),
        "notes": ["cases: " + ", ".join(f"{number} {origin}" for origin, number in sorted(count.items()))],
    }
    return prepare_units(writer, _make, tasks, label="cases", workers=output.get("workers"), report=report)


def _split(name: str, cases: list[QubiqCase], output: OutputOptions) -> Split:
    if name == "random":
        return random_split(output)
    fraction, folds = output.get("test_fraction", 0.2), output.get("folds", 3)
    if name == "first":
        return FirstSplit(fraction, folds)
    training = sorted({case.patient for case in cases if case.origin == "Training"})
    testing = {case.patient for case in cases if case.origin in ("Validation", "Testing")}
    unknown = [case.label for case in cases if not case.origin]
    if unknown or not training or not testing:
        found = f"nothing says what {unknown[0]} is for" if unknown else f"{len(training)} training patients"
        raise InputError(
            f"{found} and {len(testing)} for validation found, cases of both expected for the challenge's split; give "
            "the folder above both or another --split."
        )
    both = testing.intersection(training)
    if both:
        raise InputError(
            f"patient {min(both)} has scans in Training and in Validation, one side expected; take --split first, "
            "which keeps a patient together."
        )
    fold_of = {patient: str(i % max(folds, 1)) for i, patient in enumerate(training)}
    return GivenSplit({**fold_of, **dict.fromkeys(testing, TEST)}, folds, "the challenge's Training and Validation")


def _make(given: _CaseTask) -> Patches:
    case, task, fit, size, window = given
    patches = Patches()
    for reason, sentence in case.problems:
        patches.skip(reason, sentence)
    planes = _image(case, task, window)
    masks, valid = _masks(case, task, planes.shape, patches)
    if not valid.any():
        patches.skip("case without a usable mask", f"{case.folder} has no usable mask of task {task.number}.")
        return patches
    # an image is one slice with channels, a volume has slices of one channel
    slices = planes[:, None] if task.volume else planes[None]
    for number, (image, drawn) in enumerate(zip(slices, masks)):
        if task.volume and not drawn.any():
            patches.exclude("slice on which nobody drew")
            continue
        if not np.isfinite(image).all():
            patches.skip("image with NaN or infinity", f"{_path(case)}, slice {number} has NaN or infinity.")
            continue
        corner = window_at(drawn, size) if fit == "crop" else (0, 0)
        label = np.stack([crop(m, corner, size, 0) if fit == "crop" else resize_mask(m, size) for m in drawn])
        if task.volume and not label.any():
            patches.exclude("slice without a drawn pixel in the patch")
            continue
        row = {
            "case": f"{case.name}_s{number:03d}" if task.volume else case.name,
            "patient": case.patient,
            "slice": number,
            "origin": case.origin,
            "file": f"{case.label}/{case.image}",
            "height": image.shape[1],
            "width": image.shape[2],
            "top": corner[0],
            "left": corner[1],
            "missing": " ".join(str(r + 1) for r in np.flatnonzero(~valid)),
        }
        patches.add(_fitted(image, task.modality, fit, size, corner), label.astype(np.uint8), valid, row)
    return patches


def _path(case: QubiqCase) -> str:
    return os.path.join(case.folder, case.image or "image.nii.gz")


def _image(case: QubiqCase, task: QubiqTask, window: tuple[float, float] | None) -> np.ndarray:
    if case.image is None:
        raise InputError(f"{case.folder} has no image.nii.gz, one expected; download the case again.")
    array = read_nifti(_path(case))
    planes = as_planes(array, len(task.channels), task.volume)
    if planes is None:
        wanted = "slices of one volume" if task.volume else f"one image of {len(task.channels)} channels"
        raise InputError(f"{_path(case)} has shape {array.shape}, {wanted} expected; check the file.")
    if task.modality == "CT" and window is None and not (planes < 0).any():
        raise InputError(
            f"{_path(case)} has values {planes.min():g} to {planes.max():g}, HU (air below 0) expected; give --window "
            "LOW HIGH in the files' own units."
        )
    return planes


def _masks(case: QubiqCase, task: QubiqTask, shape: tuple[int, ...], patches: Patches) -> tuple[np.ndarray, np.ndarray]:
    """(S, R, H, W) bool, S = 1 for an image, and (R,) bool: whose mask could be used."""
    wanted = shape if task.volume else (1, *shape[1:])
    masks = np.zeros((wanted[0], task.raters, *wanted[1:]), bool)
    valid = np.zeros(task.raters, bool)
    for rater in range(1, task.raters + 1):
        if rater not in case.masks:
            patches.exclude("rater whose mask is not in the case's folder")
            continue
        path = os.path.join(case.folder, case.masks[rater])
        try:
            array = read_nifti(path)
        except InputError as error:
            patches.skip("rater whose mask cannot be read", str(error))
            continue
        planes = as_planes(array, 1, task.volume)
        if planes is None or planes.shape != wanted:
            patches.skip(
                "rater whose mask differs in size from the image",
                f"{path} has shape {array.shape}, {wanted if task.volume else wanted[1:]} expected as its image has; "
                "this rater counts as missing.",
            )
            continue
        drawn, two_valued = to_mask(planes)
        if not two_valued:
            patches.skip(
                "mask with more than two values",
                f"{path} has values {planes.min():g} to {planes.max():g}, two expected; those above half of the "
                "greatest count as drawn.",
            )
        masks[:, rater - 1], valid[rater - 1] = drawn, True
    return masks, valid


def _fitted(image: np.ndarray, modality: str, fit: str, size: int, corner: tuple[int, int]) -> np.ndarray:
    """(C, H, W) in the file's units to (C, size, size) in the data set's."""
    fitted = []
    for plane in image:
        plane = unit_range(plane) if modality == "MR" else plane.astype(np.float32).clip(LOWEST_HU, 32767)
        fitted.append(crop(plane, corner, size, float(plane.min())) if fit == "crop" else resize_image(plane, size))
    return np.stack(fitted)
