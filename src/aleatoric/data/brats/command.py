"""``aleatoric prepare brats``: the brain tumour segmentation challenge of 2017 (and later) to a prepared data set.

The rule:

- A case is four sequences and a segmentation (:mod:`.tree`); a patch is its whole volume, 240 x 240 x 155 voxels of
  1 mm. All volumes of a set have one size. Rows run towards posterior, columns towards left, slices towards superior.
- Channels: FLAIR, T1, contrast-enhanced T1, T2. Normalised inside the brain as in the SSN paper (:mod:`.volumes`),
  stored in thousandths of a standard deviation; loaders map -10..10 standard deviations to [0, 1] and air to 0.
- Classes: background, non-enhancing tumour and necrosis (1), oedema (2), enhancing tumour (4, stored as 3). One rater.
- Split: by patient, 60% training, 10% validation, 30% testing as in the paper: seven folds of the 70%.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import Unpack

from ...errors import InputError
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
from ..prepared.split_files import read_split
from ..prepared.writer import PreparedDatasetWriter
from .tree import SEQUENCES, BratsCase, find_cases
from .volumes import AIR, CLASSES, WINDOW, class_map, normalised, read_volumes, size_of

__all__ = ["FOLDS", "TEST_FRACTION", "add_arguments", "prepare_brats", "run", "volume_writer"]

TEST_FRACTION, FOLDS = 0.3, 7  # 30% testing; of the other 70% a seventh for validation


class _CaseTask(NamedTuple):
    case: BratsCase
    size: tuple[int, int, int]
    enhancing: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``aleatoric prepare brats``."""
    parser.add_argument("root", metavar="ROOT", help="folder with BraTS's HGG and LGG, or with cases in any tree")
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument(
        "--enhancing",
        type=int,
        choices=(3, 4),
        default=4,
        help="label of enhancing tumour in the files: 4 (default) until 2021, 3 since 2023",
    )
    parser.add_argument(
        "--split",
        metavar="FILE",
        help="each patient's fold, CSV (a prepared set's cases.csv, too) or JSON; default: 60/10/30 from --seed",
    )
    add_output_arguments(parser)
    parser.set_defaults(test_fraction=TEST_FRACTION, folds=FOLDS)


def run(args: argparse.Namespace) -> int:
    """``aleatoric prepare brats``; returns the exit code."""
    return conclude(
        prepare_brats(args.root, args.out, enhancing=args.enhancing, split=args.split, **output_options(args))
    )


def prepare_brats(
    root: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    enhancing: int = 4,
    split: str | os.PathLike[str] | None = None,
    **output: Unpack[OutputOptions],
) -> Path:
    """Write the prepared data set of all cases below ``root``.

    Args:
        root: where ``HGG`` and ``LGG`` lie, or one of them, or cases in any tree.
        out_dir: the data set; ``<out_dir>.partial`` beside it keeps finished cases, so a second call goes on.
        enhancing: label of enhancing tumour in the files.
        split: each patient's fold, see :func:`.prepared.split_files.read_split`; ``None``: at random.
        **output: see :class:`.prepared.preparation.OutputOptions`; here 30% are for testing, and there are 7 folds.

    Raises:
        InputError: a bad option; no such folder; no case; volumes of several sizes; a split that lacks a patient;
            nothing readable.
    """
    if enhancing not in (3, 4):
        raise InputError(f"label {enhancing} of enhancing tumour found, 4 or 3 expected; correct --enhancing.")
    output = {"test_fraction": TEST_FRACTION, "folds": FOLDS, **output}
    cases = find_cases(root)
    size = _common_size(cases)
    writer = volume_writer(
        out_dir,
        name="brats",
        source="BraTS challenge, multimodal brain tumour segmentation: registration needed, not to be passed on",
        options={"enhancing": enhancing, "split": None if split is None else os.fspath(split)},
        patch_size=size,
        origin=root,
        split=random_split(output) if split is None else read_split(split, (case.patient for case in cases)),
        **writer_options(output),
    )
    report: dict[str, object] = {}
    for key in ("grade", "site"):
        count = Counter(getattr(case, key) or "unknown" for case in cases)
        report[f"{key}s"] = dict(sorted(count.items()))
    tasks = {case.name: _CaseTask(case, size, enhancing) for case in cases}
    return prepare_units(writer, _make, tasks, label="cases", workers=output.get("workers"), report=report)


def volume_writer(
    out_dir: str | os.PathLike[str], *, options: Mapping[str, Any], **settings: Any
) -> PreparedDatasetWriter:
    """A writer for volumes with BraTS's channels, classes and normalisation; ``settings`` are the writer's own."""
    return PreparedDatasetWriter(
        out_dir,
        options={**options, "normalisation": "brats"},  # what inference must do too
        channels=list(SEQUENCES),
        classes=list(CLASSES),
        raters=1,
        intensity_window=WINDOW,
        image_dtype="int16",
        **settings,
    )


def _make(given: _CaseTask) -> Patches:
    case, size, enhancing = given
    patches = Patches()
    for reason, sentence in case.problems:
        patches.skip(reason, sentence)
    if "seg" not in case.files:  # the challenge's validation cases
        patches.skip("case without a segmentation", f"{case.folder} has no {case.name}_seg.nii.gz.")
        return patches
    paths = [case.path(key) for key in (*SEQUENCES, "seg")]
    *channels, labels = read_volumes(paths)
    if labels.shape != size:
        raise InputError(
            f"case {case.name} in {case.folder} has {_times(labels.shape)} voxels, {_times(size)} expected as in the "
            "other cases; download it again."
        )
    image = normalised(np.stack(channels), [str(path) for path in paths])
    label = class_map(labels, str(paths[-1]), enhancing)
    brain = image[0] > AIR
    if outside := int(np.count_nonzero(label[~brain])):
        patches.notes.append("voxels outside of the brain are labelled; they stay so")
    row = {
        "case": case.name,
        "patient": case.patient,
        "slice": "",
        "site": case.site,
        "grade": case.grade,
        "folder": case.label,
        "brain_voxels": int(np.count_nonzero(brain)),
        "labelled_outside": outside,
        "above_window": int(np.count_nonzero(image > WINDOW[1])),
    }
    patches.add(image, label[None], np.ones(1, bool), row)
    return patches


def _common_size(cases: list[BratsCase]) -> tuple[int, int, int]:
    """Size of every volume, turned as they are stored; files that cannot be read are another room's concern."""
    sizes = {case.name: size for case in cases if (size := size_of(case.first)) is not None}
    if not sizes:
        raise InputError(
            f"none of {len(cases)} cases could be read, at least one expected; the first is {cases[0].folder}."
        )
    ((size, count), *_) = Counter(sizes.values()).most_common(1)
    for case in cases:
        if sizes.get(case.name, size) != size:
            raise InputError(
                f"case {case.name} in {case.folder} has {_times(sizes[case.name])} voxels, {_times(size)} expected as "
                f"in {count} other cases; leave it out, or bring all to one size."
            )
    return size


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
