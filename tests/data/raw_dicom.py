"""Small raw DICOM series for the tests: a scan that the database knows, with pixels that say where they come from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from aleatoric.data.lidc.annotations import ScanRecord, nodule_slices, nodules

__all__ = ["coded_hu", "nodule_positions", "write_scan", "write_slice"]


def coded_hu(index: int, shape: tuple[int, int] = (512, 512)) -> np.ndarray:
    """(rows, columns) int16 HU that differ between slices and under any shift, transposition or flip."""
    rows, columns = np.indices(shape)
    return (rows + 2 * columns + 11 * index - 1000).astype(np.int16)


def write_slice(
    path: Path,
    hu: np.ndarray,
    *,
    series_uid: str,
    position: Iterable[float],
    patient_id: str = "somebody",
    study_uid: str = "1.2.3",
    instance: int = 1,
    spacing: tuple[float, float] = (0.7, 0.7),
    orientation: Iterable[float] = (1, 0, 0, 0, 1, 0),
    modality: str = "CT",
    intercept: int = -1024,
    location: float | None = None,
) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = patient_id, study_uid, series_uid
    data.Modality, data.InstanceNumber = modality, instance
    data.Rows, data.Columns = hu.shape
    data.PixelSpacing = list(spacing)
    if modality != "DX":
        data.ImagePositionPatient = [float(p) for p in position]
        data.ImageOrientationPatient = [float(o) for o in orientation]
    if location is not None:
        data.SliceLocation = location
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, intercept
    data.PixelData = (hu.astype(np.int32) - intercept).astype("<i2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def nodule_positions(scan: ScanRecord) -> list[float]:
    """z of every slice on which a rater drew."""
    return sorted({patch.z for nodule in nodules(scan) for patch in nodule_slices(scan, nodule, size=1)})


def write_scan(
    folder: Path, scan: ScanRecord, positions: Iterable[float] | None = None, intercept: int = -1024
) -> list[Path]:
    """The slices of ``scan`` at ``positions`` (default: its nodules' slices), named in no useful order.

    The pixels are ``coded_hu(k)`` with k the slice's index among the scan's z positions.
    """
    paths = []
    for z in nodule_positions(scan) if positions is None else positions:
        k = int(np.abs(scan.z_positions - z).argmin())
        paths.append(
            write_slice(
                folder / f"{(k * 37) % 1000:06d}.dcm",
                coded_hu(k),
                series_uid=scan.series_uid,
                study_uid=scan.study_uid,
                patient_id=scan.patient_id,
                position=(-180.0, -170.0, z),
                spacing=(scan.pixel_spacing, scan.pixel_spacing),
                instance=len(scan.z_positions) - k,
                location=z,
                intercept=intercept,
            )
        )
    return paths
