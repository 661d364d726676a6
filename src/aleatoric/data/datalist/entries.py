"""Reading and checking LIST.json: MONAI's datalist form, with one label file per rater.

Only the list is read here, no image. Every mistake is one sentence that names the entry.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ..prepared.splits import TEST, TRAIN
from .json import (
    LIST,
    SECTIONS,
    as_classes,
    as_names,
    parse_list,
    plain_text,
    read_bytes,
    refuse_typo,
    sections_of,
)
from .raters import raters_of, slots

__all__ = ["DataList", "Entry", "numbered", "read_datalist", "stem"]

_KEYS = ("image", "label", "patient", "site", "case", "fold")
#: columns of cases.csv that are ours; an entry's own key of that name is kept as "list_<key>"
_RESERVED = ("slice", "raters", "section", "row", "column", "spacing", "drawn_inside", "file")
_SUFFIXES = (".nii.gz", ".seg.nrrd", ".ome.tif", ".ome.tiff")


class Entry(NamedTuple):
    """One image and what its raters drew; small, it travels to other processes.

    Attributes:
        number: position in the list, from 1 over all sections.
        where: how a sentence calls it: ``"training entry 3"``.
        case: unique name.
        patient: whose image; the unit of every split.
        image: the file, or one file per channel.
        labels: file of each rater, ``None`` where the list has none.
        section: ``training``, ``validation`` or ``testing``.
        fold: ``"test"``, ``"train"``, ``"0"``, ``"1"`` ...: the entry's own, else what its section says.
        columns: more columns of cases.csv.
        patient_named: whether the list names the patient; else it stands for the image file.
    """

    number: int
    where: str
    case: str
    patient: str
    image: tuple[str, ...]
    labels: tuple[str | None, ...]
    section: str
    fold: str
    columns: Mapping[str, str]
    patient_named: bool = True


class DataList(NamedTuple):
    """LIST.json, checked.

    Attributes:
        path: the file.
        sha256: its fingerprint.
        root: folder that relative paths start from.
        raters: R names.
        classes: names of the label values, or ``None`` where the list does not say.
        channels: names of the image's channels, or ``None``.
        entries: those with at least one label file, in the list's order.
        has_folds: whether any entry has a ``fold`` of its own.
        about: ``name``, ``description``, ``licence`` ... as far as they are there.
        notes: what a user should know, in sentences.
    """

    path: Path
    sha256: str
    root: Path
    raters: tuple[str, ...]
    classes: tuple[str, ...] | None
    channels: tuple[str, ...] | None
    entries: tuple[Entry, ...]
    has_folds: bool
    about: dict[str, str]
    notes: list[str]


def read_datalist(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> DataList:
    """Read LIST.json.

    Args:
        path: the file.
        root: folder that relative paths start from; ``None``: the file's own.

    Raises:
        InputError: no JSON; no entry with a label; an unknown key that looks like a mistyped one; an image that is
            missing; one case name twice; raters named and not named in one list.
    """
    path = Path(path)
    content = read_bytes(path, LIST)
    top = parse_list(path, content)
    sections = sections_of(path, top)
    folder = Path(root) if root is not None else path.parent
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder, the one that {path.name}'s paths start from expected; correct it.")
    raw = [
        (f"{section} entry {number}", section, entry)
        for section, entries in sections.items()
        for number, entry in enumerate(entries, 1)
    ]
    notes: list[str] = []
    read = [_entry(path, where, section, entry, folder) for where, section, entry in raw]
    labelled = [fields for fields in read if fields["labels"]]
    if not labelled:
        raise InputError(f"{path} has {len(read)} entries, none with a label file; give the raters' files as 'label'.")
    if len(labelled) < len(read):
        notes.append(f"{len(read) - len(labelled)} of {len(read)} entries name no label file and are left out")
    raters, told = raters_of(path, top, labelled)
    notes += told
    names = _unique_names([fields["image"][0] for fields in labelled], folder)
    if lost := sum(fields["patient"] is None for fields in labelled):
        notes.append(
            f"{lost} of {len(labelled)} entries name no patient: DICOM's PatientID counts where there is one (not "
            "with a given split), otherwise each image file as a patient of its own, so "
            "several images of one patient may lie on two sides of the split; add 'patient' to the entries"
        )
    if ignored := sorted({key for fields in read for key in fields["ignored"]}):
        notes.append(f"keys of entries that were not used: {', '.join(ignored)}")
    entries = tuple(
        Entry(
            number,
            fields["where"],
            fields["case"] or name,
            fields["patient"] or name,
            fields["image"],
            slots(fields["labels"], raters),
            SECTIONS[fields["section"]],
            fields["fold"] or {"training": TRAIN, "validation": "0", "testing": TEST}[SECTIONS[fields["section"]]],
            fields["columns"],
            bool(fields["patient"]),
        )
        for number, (fields, name) in enumerate(zip(labelled, names), 1)
    )
    _check_entries(path, entries)
    channels = next((top[key] for key in ("channels", "channel_names", "modality") if key in top), None)
    classes = next((top[key] for key in ("classes", "labels") if key in top), None)
    about = {key: str(top[key]) for key in ("name", "description", "reference", "licence", "license") if top.get(key)}
    return DataList(
        path,
        hashlib.sha256(content).hexdigest(),
        folder,
        raters,
        None if classes is None else as_classes(classes, f"{path}"),
        None if channels is None else as_names(channels, f"{path}: channels"),
        entries,
        any(fields["fold"] for fields in labelled),
        about,
        notes,
    )


def stem(path: str) -> str:
    """File name without what says its format."""
    name = os.path.basename(os.path.normpath(path))
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return os.path.splitext(name)[0] or name


def _entry(path: Path, where: str, section: str, entry: Any, root: Path) -> dict[str, Any]:
    named = f"{path}: {where}"
    if isinstance(entry, str):  # the decathlon lists test images so
        entry = {"image": entry}
    if not isinstance(entry, dict):
        raise InputError(
            f"{named} is a {type(entry).__name__}, an object with 'image' and 'label' expected; correct it."
        )
    columns, ignored = {}, []
    for key, value in entry.items():
        if key in _KEYS:
            continue
        refuse_typo(named, key, _KEYS)
        if isinstance(value, (str, int, float)) and key.isprintable():
            columns[f"list_{key}" if key in _RESERVED else key] = plain_text(str(value), named, repr(key), empty=True)
        else:
            ignored.append(key)
    if not entry.get("image"):
        raise InputError(f"{named} has no 'image' (it has {', '.join(entry) or 'nothing'}), a file expected; add it.")
    files = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    image = tuple(_path(name, named, "image", root) for name in files)
    lost = [name for name in image if not os.path.exists(name)]
    if lost:
        raise InputError(f"{named}: there is no image {lost[0]}; correct the path, or give --root, where paths start.")
    texts = {key: _name(entry.get(key), named, key) for key in ("case", "patient", "site")}
    if texts["site"] is not None:
        columns["site"] = texts["site"]
    fold = _name(entry.get("fold"), named, "fold")
    if fold is not None and fold not in (TEST, TRAIN) and not (fold.isascii() and fold.isdigit() and len(fold) < 4):
        raise InputError(f"{named}: fold {fold!r} found, a number from 0, {TEST!r} or {TRAIN!r} expected; correct it.")
    return {
        "where": where,
        "section": section,
        "image": image,
        "labels": _labels(entry.get("label"), named, root),
        "case": texts["case"],
        "patient": texts["patient"],
        "fold": str(int(fold)) if fold is not None and fold.isdigit() else fold,
        "columns": columns,
        "ignored": ignored,
    }


def _labels(value: Any, named: str, root: Path) -> dict[str, str | None] | list[str | None]:
    """Files by rater's name or by position; empty where there is none at all."""

    def file(name: Any) -> str | None:
        return None if name is None or name == "" else _path(name, named, "label", root)

    if value is None or isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        files: Any = [file(name) for name in value]
        return files if any(files) else []
    if isinstance(value, dict):
        files = {plain_text(rater, named, "a rater's name"): file(name) for rater, name in value.items()}
        return files if any(files.values()) else {}
    raise InputError(f"{named}: label {value!r} found, a file, a list of files or an object expected; correct it.")


def _unique_names(images: Sequence[str], root: Path) -> list[str]:
    """A name per entry: the image file's, with its folders where that is not unique (p1/t1.nii.gz, p2/t1.nii.gz)."""
    files: dict[str, set[str]] = {}
    for image in images:
        files.setdefault(stem(image), set()).add(image)
    if all(len(same) == 1 for same in files.values()):
        return [stem(image) for image in images]
    names = []
    for image in images:
        folder = os.path.relpath(os.path.dirname(image), root).replace(os.sep, "_")
        names.append(stem(image) if folder == "." else f"{folder}_{stem(image)}")
    return names


def _check_entries(path: Path, entries: Sequence[Entry]) -> None:
    seen: dict[str, Entry] = {}
    for entry in entries:
        before = seen.setdefault(entry.case, entry)
        if before is not entry:
            raise InputError(
                f"{path}: {before.where} and {entry.where} are both case {entry.case!r}, different ones expected; give "
                "each a 'case' of its own or remove one."
            )


def _path(name: Any, named: str, key: str, root: Path) -> str:
    return os.path.normpath(os.path.join(root, plain_text(name, named, f"a file as {key!r}")))


def _name(value: Any, named: str, key: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return plain_text(value, named, f"a name as {key!r}")


def numbered(entries: Sequence[Entry]) -> Iterator[tuple[str, Entry]]:
    """Unit name of each entry: its number, which keeps the list's order, and what a file name can hold of its case."""
    for entry in entries:
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in entry.case)
        yield f"{entry.number:06d}_{plain[:60]}", entry
