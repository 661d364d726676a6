"""Image and label files for the tests of the readers: one volume in any format, orientation and extent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import nibabel.orientations as nio
import nrrd
import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from raw_dicom import write_slice

__all__ = ["AFFINE", "SHAPE", "orientations", "reoriented", "seg_file", "series", "write_nifti", "write_nrrd"]

SHAPE = (5, 6, 7)  # rows, columns, slices
_ANGLE = 0.1
# index (row, column, slice) -> RAS mm, rows towards posterior, columns towards left, slices towards superior; oblique.
AFFINE = np.array(
    [
        [0.8 * np.sin(_ANGLE), -0.7 * np.cos(_ANGLE), 0, 30.0],
        [-0.8 * np.cos(_ANGLE), -0.7 * np.sin(_ANGLE), 0, 41.0],
        [0, 0, 2.5, -120.0],
        [0, 0, 0, 1],
    ]
)


def orientations() -> Iterator[np.ndarray]:
    """All 48 signed permutations of three axes, as nibabel writes them."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield np.array([order, signs], float).T


def reoriented(array: np.ndarray, affine: np.ndarray, ornt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same volume with its axes permuted and flipped, and the affine that goes with it."""
    return nio.apply_orientation(array, ornt), affine @ nio.inv_ornt_aff(ornt, array.shape[:3])


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None, **header: Any) -> Path:
    """``affine`` None: a header with both codes 0."""
    image = nib.Nifti1Image(array, affine)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def write_nrrd(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray | None,
    space: str = "left-posterior-superior",
    more: Mapping[str, Any] | None = None,
) -> Path:
    """``array`` (a, b, c), or (layers, a, b, c) with a list axis in front."""
    header: dict[str, Any] = dict(more or {})
    if affine is not None:
        signs = {"left": -1, "right": 1, "anterior": 1, "posterior": -1, "superior": 1, "inferior": -1}
        turn = np.diag([signs[word] for word in space.split("-")[:3]])
        directions = (turn @ affine[:3, :3]).T
        listed = array.ndim == 4
        header["space"] = space
        header["space directions"] = np.vstack([np.full(3, np.nan), directions]) if listed else directions
        header["space origin"] = turn @ affine[:3, 3]
        header["kinds"] = ["list"] * listed + ["domain"] * 3
    nrrd.write(str(path), array, header)
    return path


def series(folder: Path, array: np.ndarray, affine: np.ndarray = AFFINE, **tags: Any) -> Path:
    """A DICOM series of ``array`` (rows, columns, slices) int16, files in no useful order."""
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    for k in range(array.shape[2]):
        path = write_slice(
            folder / f"{(k * 5) % 17:03d}.dcm",
            array[:, :, k],
            series_uid=tags.get("series_uid", "1.2.3.4"),
            position=lps[:3, 3] + k * lps[:3, 2],
            orientation=(*(lps[:3, 1] / spacing[1]), *(lps[:3, 0] / spacing[0])),
            spacing=(spacing[0], spacing[1]),
            instance=k + 1,
            modality=tags.get("modality", "CT"),
        )
        data = pydicom.dcmread(path)
        data.FrameOfReferenceUID = tags.get("frame_of_reference", "1.2.3.9")
        data.PatientName = data.PatientBirthDate = data.PatientSex = data.AccessionNumber = data.StudyID = ""
        data.StudyDate, data.StudyTime = "20200101", "120000"
        data.SliceThickness = float(spacing[2])
        data.save_as(path)
    return folder


def seg_file(
    path: Path,
    folder: Path,
    masks: Mapping[str, np.ndarray],
    kind: str = "BINARY",
    omit_empty_frames: bool = True,
    flipped: bool = False,
) -> Path:
    """A DICOM-SEG of the series in ``folder``: name -> (rows, columns, slices), slices ascending.

    ``flipped`` writes the frames in descending order. A label map takes the masks' values by their order.
    """
    sources = [pydicom.dcmread(file) for file in folder.glob("*.dcm")]
    normal = np.cross(sources[0].ImageOrientationPatient[:3], sources[0].ImageOrientationPatient[3:])
    sources.sort(key=lambda data: float(np.dot(normal, data.ImagePositionPatient)), reverse=flipped)
    stack = np.stack(list(masks.values()), axis=-1).transpose(2, 0, 1, 3)[:: -1 if flipped else 1]
    pixels = stack.astype(np.float32) if kind == "FRACTIONAL" else stack.astype(np.uint8)
    if kind == "LABELMAP":
        pixels = (stack * np.arange(1, len(masks) + 1)).max(axis=-1).astype(np.uint8)
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=k + 1,
            segment_label=name,
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Lung,
            algorithm_type="MANUAL",
        )
        for k, name in enumerate(masks)
    ]
    seg = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=hd.UID(),
        series_number=2,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="tests",
        manufacturer_model_name="tests",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=omit_empty_frames,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path
