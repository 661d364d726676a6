"""Which DICOM files hold the slices that LIDC's raters drew on. All others are counted and forgotten.

A file is known by what it says of itself, and a damaged file may say something wrong. So what is the same throughout a
series is compared: a file that differs from the rest of its series contradicts it, and is not used.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..prepared.parallel import each_result
from ..readers.dicom import SliceHeader, dicom_files, read_headers

__all__ = ["POSITION_TOLERANCE", "FoundFiles", "find_files"]

POSITION_TOLERANCE = 0.02  # mm; the database copied the positions from the files, slices are 0.45 mm apart or more
_CHUNK = 256  # files per task
_ONE_PROCESS = 16  # so many tasks are done sooner than processes start
_LISTED = 20  # sentences that are kept; all are counted
_SHARE = 0.9  # of a series' files: what so many agree on, the others contradict


@dataclass
class FoundFiles:
    """What the headers below a folder say; grows with the slices that were drawn on, not with the files."""

    slices: dict[str, dict[float, list[SliceHeader]]] = field(default_factory=dict)  # series -> z -> files, best first
    contradictions: dict[str, str] = field(default_factory=dict)  # path -> what differs from the series
    files: int = 0  # DICOM headers read
    series: set[str] = field(default_factory=set)  # every series with a place in space, annotated or not
    unreadable: int = 0
    problems: list[str] = field(default_factory=list)  # sentences on the first of the unreadable, by path


def find_files(raw_dir: Path, drawn: Mapping[str, np.ndarray], workers: int) -> FoundFiles:
    """Read the headers of all DICOM files below a folder, and keep what is needed.

    Args:
        raw_dir: any layout.
        drawn: SeriesInstanceUID -> ascending z (mm) of the slices that are wanted.
        workers: processes.

    Raises:
        InputError: no DICOM file, a folder that may not be listed.
    """
    found = FoundFiles()
    usual: dict[str, Counter[tuple[str, Any]]] = {}
    chunks = _chunks(dicom_files(raw_dir))
    first = list(islice(chunks, _ONE_PROCESS + 1))
    if not first:
        raise InputError(
            f"{raw_dir} holds no DICOM file, LIDC-IDRI's CT series expected; correct the path or download it."
        )
    workers = workers if len(first) > _ONE_PROCESS else 1
    for headers, problems in each_result(read_headers, chain(first, chunks), workers, f"headers (x {_CHUNK} files)"):
        found.files += len(headers)
        found.unreadable += len(problems)
        found.problems = heapq.nsmallest(_LISTED, [*found.problems, *problems])
        for header in headers:
            if header.position is None:
                continue  # radiographs and scouts
            found.series.add(header.series_uid)
            if header.series_uid in drawn:
                usual.setdefault(header.series_uid, Counter()).update([("", None), *_constants(header).items()])
                _keep(found.slices, header, drawn[header.series_uid])
    for uid, by_z in found.slices.items():
        expected = {name: value for (name, value), n in usual[uid].items() if n >= _SHARE * usual[uid]["", None]}
        for header in chain.from_iterable(by_z.values()):
            constants = _constants(header)
            wrong = [name for name, value in expected.items() if name and constants[name] != value]
            if wrong:
                found.contradictions[header.path] = " and ".join(wrong)
        for files in by_z.values():  # the lowest InstanceNumber is pylidc's choice
            files.sort(key=lambda header: (header.path in found.contradictions, header.instance, header.path))
    return found


def _chunks(paths: Iterable[str]) -> Iterator[list[str]]:
    paths = iter(paths)
    while chunk := list(islice(paths, _CHUNK)):
        yield chunk


def _keep(slices: dict[str, dict[float, list[SliceHeader]]], header: SliceHeader, drawn: np.ndarray) -> None:
    assert header.position is not None
    by_z = slices.setdefault(header.series_uid, {})
    distance = np.abs(drawn - header.position[2])
    if len(drawn) and distance.min() <= POSITION_TOLERANCE:
        by_z.setdefault(float(drawn[distance.argmin()]), []).append(header)


def _constants(header: SliceHeader) -> dict[str, Any]:
    """What all slices of a series share. Where they do not (a tilted gantry's y), nothing is expected."""
    assert header.position is not None
    x, y, z = header.position
    return {
        "PatientID": header.patient_id,
        "StudyInstanceUID": header.study_uid,
        "PixelSpacing": header.spacing,
        "ImageOrientationPatient": header.orientation,
        "ImagePositionPatient (x)": x,
        "ImagePositionPatient (y)": y,
        # a position read wrongly would put the pixels under another slice's masks
        "SliceLocation": None if header.location is None else round(header.location - z, 1),
        "RescaleSlope or RescaleIntercept": header.rescale,
        "BitsAllocated, BitsStored or PixelRepresentation": header.stored,
    }
