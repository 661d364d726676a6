"""Any 2D or 3D medical image, and any rater's label file on the image's grid.

    scan = read_scan("case1/ct.nii.gz")                      # or a DICOM folder, an NRRD, a PNG, TIFF or JPEG
    label = read_label("case1/rater2.seg.nrrd", scan)        # same voxels, whatever the file's extent and orientation

Where a format says how a volume lies, axes are permuted and flipped, never interpolated, to rows towards posterior,
columns towards left, slices towards superior: the orientation that the bundles infer in. Without geometry (PNG, TIFF,
JPEG, many NIfTI files) the axes are taken as they are: (row, column, slice) is axis (0, 1, 2) of the file's array.
"""

from __future__ import annotations

import gzip
import itertools
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Union

import numpy as np

from ...errors import InputError
from .class_maps import class_map
from .dicom import dicom_files, read_exact, read_header, read_slice, read_volume, stack_affine
from .dicom_seg import read_segmentation
from .geometry import Turn, closest_turn, onto_grid, same_grid, spacing_of, turned
from .pictures import read_picture
from .raw_images import RawImage, quietly, read_nifti, read_nrrd, reading

__all__ = ["LabelMap", "Scan", "find_kind", "read_label", "read_scan"]

PathLike = Union[str, "os.PathLike[str]"]

_SUFFIXES = {
    ".nii": "NIfTI", ".nii.gz": "NIfTI", ".hdr": "NIfTI", ".img": "NIfTI",
    ".nrrd": "NRRD", ".nhdr": "NRRD", ".dcm": "DICOM series",
    ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG",
}  # fmt: skip
_MAGIC = (
    (0, (b"\x89PNG\r\n\x1a\n",), "PNG"),
    (0, (b"\xff\xd8\xff",), "JPEG"),
    (0, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
    (0, (b"NRRD",), "NRRD"),
    (128, (b"DICM",), "DICOM series"),
    (344, (b"n+1\0", b"ni1\0"), "NIfTI"),
    (4, (b"n+2\0", b"ni2\0"), "NIfTI"),
)
_SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # segmentation, label map segmentation
_ROW_FIRST = ("PNG", "TIFF", "JPEG", "DICOM series")  # axis 0 runs down a picture; in NIfTI and NRRD it is mostly x


class Scan(NamedTuple):
    """One image."""

    array: np.ndarray  # (C, H, W) or (C, H, W, D), native type, rescaled where the file says so
    affine: np.ndarray | None  # (4, 4), index (row, column, slice) -> RAS mm; None where the file says nothing of it
    spacing: tuple[float, ...] | None  # mm along rows, columns[, slices]; None where unknown
    kind: str  # "NIfTI", "DICOM series", "NRRD", "PNG", "TIFF", "JPEG"
    info: dict[str, Any]  # "files", "turn" (from the file's axes), "colour"; of DICOM patient, modality, UIDs


class LabelMap(NamedTuple):
    """One rater's label."""

    array: np.ndarray  # (H, W) or (H, W, D) uint8, on the grid of the image it was read for
    names: dict[int, str]  # class value -> name, where the format has names
    notes: list[str]  # what had to be done, or looks odd


def read_scan(path: PathLike | Sequence[PathLike]) -> Scan:
    """One image; of several paths each gives its channels, all on one grid.

    A volume of one slice is 2D, shown as DICOM stores planes: axial (posterior, left), coronal (inferior, left),
    sagittal (inferior, posterior). Colours are three channels, alpha is dropped; pages of a TIFF are slices; a fourth
    axis holds channels.

    Raises:
        InputError: nothing there, damaged, of no known kind, a DICOM-SEG, or channels that differ in size or place.
    """
    paths = [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(p) for p in path]
    if not paths:
        raise InputError("an image of no files was asked for, at least one path expected; correct the list.")
    scans = [_read_one(p) for p in paths]
    first = scans[0]
    for place, scan in zip(paths[1:], scans[1:]):
        _check_channel(paths[0], first, place, scan)
    if len(scans) == 1:
        return first
    info = {**first.info, "files": [str(p) for p in paths], "colour": False}
    return first._replace(array=np.concatenate([scan.array for scan in scans]), info=info)


def read_label(path: PathLike, scan: Scan, *, segment: str | int | None = None) -> LabelMap:
    """One rater's label on the grid of ``scan``.

    With geometry on both sides the label is placed where it lies, whatever its extent and orientation; on another
    lattice it is resampled to the nearest voxel, which a note says. Without, its shape must be the image's in the order
    of the files.

    Args:
        path: a class map or mask in any format but JPEG, 3D Slicer's ``.seg.nrrd``, a DICOM-SEG or a folder with one.
        segment: number or name of the one class wanted; it becomes class 1.

    Raises:
        InputError: damaged; no class map (colours, fractions, values beyond 0..255, overlapping classes); of another
            shape; elsewhere in space or in another frame of reference.
    """
    place = Path(path)
    shape = (*scan.array.shape[1:], 1)[:3]
    kind = find_kind(place)
    if place.is_dir():
        place, kind = _only_segmentation(place) or (place, kind)
    if kind == "DICOM segmentation":
        array, names, notes = read_segmentation(place, shape, scan.affine, scan.info, segment)
        return LabelMap(array.reshape(scan.array.shape[1:]), names, notes)
    raw = _read_raw(place, kind)
    label, names, notes = class_map(raw, place, segment)
    if raw.affine is not None and scan.affine is not None:
        own = str(raw.info.get("frame_of_reference_uid") or "")
        if own and scan.info.get("frame_of_reference_uid") and own != scan.info["frame_of_reference_uid"]:
            raise InputError(
                f"{place} lies in the frame of reference {own}, the image's {scan.info['frame_of_reference_uid']} "
                "expected; correct the pairing of files."
            )
        turn = closest_turn(raw.array.shape[1:], raw.affine)
        known = scan.info.get("turn", turn)
        if (turn.target, turn.flip) != (known.target, known.flip):
            notes.append("stored in another orientation than the image: turned to it")
        array, more = onto_grid(label, raw.affine, shape, scan.affine, place)
    else:
        array, more = _in_file_order(label, raw, place, scan)
    return LabelMap(np.ascontiguousarray(array).reshape(scan.array.shape[1:]), names, notes + more)


def find_kind(path: PathLike) -> str:
    """Kind of a file, by its first bytes, then by its name; of a folder by the DICOM files in it.

    Returns:
        "NIfTI", "DICOM series", "DICOM segmentation", "NRRD", "PNG", "TIFF" or "JPEG".

    Raises:
        InputError: nothing there, or none of these.
    """
    place = Path(path)
    if place.is_dir():
        kinds = (_dicom_kind(Path(file)) for file in dicom_files(place))
        found = next((kind for kind in kinds if kind != "DICOM segmentation"), None)
        if found is None and next(dicom_files(place), None) is None:
            raise InputError(
                f"{place} is a folder without DICOM files, an image file or a DICOM series expected; correct the path."
            )
        return found or "DICOM segmentation"
    try:
        with open(place, "rb") as file:
            head = file.read(1024)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(place) as packed:
                head = packed.read(1024)
    except FileNotFoundError:
        raise InputError(f"there is no {place}, an image file or a DICOM folder expected; correct the path.") from None
    except OSError as error:
        raise InputError(f"{place} cannot be read ({error}), a complete file expected; copy it again.") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{place} cannot be unpacked ({error}), a complete file expected; copy it again.") from error
    for offset, words, kind in _MAGIC:
        if any(head[offset : offset + len(word)] == word for word in words):
            return _dicom_kind(place) if kind == "DICOM series" else kind
    for suffix, kind in _SUFFIXES.items():
        if place.name.lower().endswith(suffix) and head:
            return kind
    raise InputError(
        f"{place} is {'empty' if not head else 'of no known kind'}, NIfTI, DICOM, NRRD, PNG, TIFF or JPEG "
        "expected; convert it."
    )


def _read_one(path: Path) -> Scan:
    kind = find_kind(path)
    if kind == "DICOM segmentation":
        raise InputError(f"{path} is a DICOM segmentation, an image expected; give the series that it was drawn on.")
    raw = _read_raw(path, kind)
    array, info = raw.array, dict(raw.info)
    palette = info.pop("palette", None)
    if palette is not None:
        with reading(path, kind):  # an index beyond the palette
            array, info["colour"] = np.moveaxis(palette[array[0]], -1, 0), True
    info.pop("segments", None)
    turn = closest_turn(array.shape[1:], raw.affine)
    array, affine = turned(array, raw.affine, turn)
    spacing = raw.spacing if affine is None else spacing_of(affine)
    if array.shape[3] == 1:
        array, spacing = array[..., 0], spacing and spacing[:2]
    info.update(files=[str(path)], turn=turn)
    return Scan(np.ascontiguousarray(array), affine, spacing, kind, info)


def _read_raw(path: Path, kind: str) -> RawImage:
    raw = _RAW[kind](path) if kind in _RAW else read_picture(path, kind)
    if raw.array.size == 0 or raw.array.dtype.kind not in "biuf":
        raise InputError(
            f"{path} holds {raw.array.shape} values of type {raw.array.dtype}, numbers expected; export it again."
        )
    return raw._replace(array=raw.array.astype(np.uint8)) if raw.array.dtype == bool else raw


def _read_dicom(path: Path) -> RawImage:
    with quietly():
        files = list(itertools.islice(dicom_files(path), 2)) if path.is_dir() else [str(path)]
        if len(files) == 1:
            _refuse_no_image(files[0])
            header = read_header(files[0])
            array = (read_slice if header.modality == "CT" else read_exact)(header.path)[..., None]
            placed = header.position is not None and header.orientation is not None and header.spacing is not None
            affine = stack_affine(path, [header]) if placed else None
        else:
            volume = read_volume(path)
            array, affine, header = volume.image, volume.affine, volume.headers[0]
    spacing = spacing_of(affine) if affine is not None else header.spacing and (*header.spacing, 1.0)
    info = {
        "colour": False,
        "patient_id": header.patient_id,
        "modality": header.modality,
        "study_uid": header.study_uid,
        "series_uid": header.series_uid,
        "frame_of_reference_uid": header.frame_of_reference,
    }
    return RawImage(array[None], affine, spacing, "DICOM series", info)


_RAW = {"NIfTI": read_nifti, "NRRD": read_nrrd, "DICOM series": _read_dicom}


def _dicom_tags(path: PathLike) -> Any:
    import pydicom

    with quietly():
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "Modality", "Rows"])


def _dicom_kind(path: Path) -> str:
    try:
        is_seg = _dicom_tags(path).get("SOPClassUID") in _SEG_CLASSES
    except Exception:  # damaged: reading it says how
        is_seg = False
    return "DICOM segmentation" if is_seg else "DICOM series"


def _refuse_no_image(path: str) -> None:
    try:
        tags = _dicom_tags(path)
    except Exception:  # as above
        return
    if tags.get("Modality") and not tags.get("Rows"):
        raise InputError(
            f"{path} is a DICOM object without pixels ({tags.Modality}), an image or a segmentation expected; convert "
            "contours to a DICOM-SEG or NRRD, in 3D Slicer for example."
        )


def _only_segmentation(folder: Path) -> tuple[Path, str] | None:
    found = [file for file in dicom_files(folder) if _dicom_kind(Path(file)) == "DICOM segmentation"]
    if len(found) > 1:
        raise InputError(
            f"{folder} holds {len(found)} DICOM segmentations, one expected; choose one file: {', '.join(found[:4])}."
        )
    return (Path(found[0]), "DICOM segmentation") if found else None


def _check_channel(path: Path, first: Scan, other_path: Path, other: Scan) -> None:
    if other.array.shape[1:] != first.array.shape[1:]:
        raise InputError(
            f"{other_path} has the size {other.array.shape[1:]}, {first.array.shape[1:]} as {path} expected of its "
            "other channel; resample it."
        )
    if (first.affine is None) != (other.affine is None):
        silent, placed = (path, other_path) if first.affine is None else (other_path, path)
        raise InputError(
            f"{silent} does not say where it lies, {placed} does, one geometry expected; export both alike."
        )
    shape = (*first.array.shape[1:], 1)[:3]
    if first.affine is not None and other.affine is not None and not same_grid(first.affine, other.affine, shape):
        raise InputError(
            f"{other_path} lies on another grid than {path}, one grid of all channels expected; resample it."
        )
    patients = [str(scan.info.get("patient_id") or "") for scan in (first, other)]
    if all(patients) and patients[0] != patients[1]:
        raise InputError(
            f"{other_path} is of patient {patients[1]}, {patients[0]} as {path} expected; correct the list."
        )


def _in_file_order(label: np.ndarray, raw: RawImage, path: Path, scan: Scan) -> tuple[np.ndarray, list[str]]:
    """Voxel by voxel, where one side does not say where it lies."""
    import nibabel as nib

    identity = Turn((*scan.array.shape[1:], 1)[:3], (0, 1, 2), (1, 1, 1))
    turn: Turn = scan.info.get("turn", identity)
    own, wanted = (tuple(n for n in shape if n != 1) for shape in (label.shape, turn.shape))
    if own != wanted:
        turned_round = sorted(own) == sorted(wanted)
        raise InputError(
            f"{path} has the size {own}, {wanted} as the image's file expected"
            + (": it is transposed, which is never guessed; " if turned_round else "; ")
            + "save the label in the image's order of axes."
        )
    mixed = raw.kind != scan.kind
    if mixed and (raw.kind in _ROW_FIRST) != (scan.kind in _ROW_FIRST) and len(set(own[:2])) == 1:
        raise InputError(
            f"{path} ({raw.kind}) and the image ({scan.kind}) order rows and columns differently as a rule, and a "
            "square picture does not tell, the same format expected; save the label as the image is."
        )
    if scan.info.get("identity") and raw.affine is not None:
        # The image's identity may be meant. A label of the same orientation agrees with it in the order of the files;
        # of another one it does not, and nothing says which of the two is right.
        codes = "".join(nib.aff2axcodes(raw.affine))
        if codes != "RAS":
            raise InputError(
                f"{path} runs along {codes}, the image's affine is the identity (RAS) and may be a real one or none at "
                "all, one geometry expected; save both with the scanner's affine."
            )
    notes = []
    if scan.affine is not None or raw.affine is not None:
        silent = "label" if raw.affine is None else "image"
        notes.append(f"the {silent} does not say where it lies: taken in the order of the image's file")
    elif mixed:
        notes.append(f"a {raw.kind} label of a {scan.kind} image: taken in the order of the image's file")
    return turned(label.reshape(turn.shape), None, turn)[0], notes
