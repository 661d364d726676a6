"""What a datalist and the options of ``aleatoric prepare datalist`` come to, before the images are read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import Unpack

from ...errors import InputError
from ..prepared.patching import PERCENTILES
from ..prepared.preparation import OutputOptions, random_split, writer_options
from ..prepared.split_files import fold_count, read_split
from ..prepared.splits import GivenSplit, Split
from ..prepared.writer import PreparedDatasetWriter
from .cases import LoadedCase, load_case
from .entries import DataList, Entry, read_datalist
from .json import as_classes
from .patches import FITS, PLANES, SLICES, PatchOptions

__all__ = ["DatalistOptions", "Plan", "plan_datalist"]

_NARROW = 100.0  # a window of fewer steps than this is not kept in whole numbers


class DatalistOptions(OutputOptions, total=False):
    """Keywords of :func:`.command.prepare_datalist`; each is the command's option of that name.

    Keys:
        root: folder that the list's paths start from; ``None``: the list's own.
        patch_size: rows, columns[, slices with ``keep_3d``].
        fit: ``crop``, ``resize`` or ``pad``.
        keep_aspect: pad to the patch's aspect before ``resize``.
        spacing: mm per pixel to resample to first.
        plane: ``axial``, ``coronal`` or ``sagittal``.
        slices: ``foreground`` or ``all``.
        keep_3d: patches are volumes.
        window: (low, high): intensities stay as they are, loaders map this to [0, 1].
        normalize: ``image`` or ``none``; ``None``: ``image`` unless there is a window.
        classes: their number with the background, or their names (with commas between, or a sequence).
        split: ``patient``, ``site``, ``list`` or a JSON or CSV file; ``None``: ``list`` where it says something.
    """

    root: str | os.PathLike[str] | None
    patch_size: Sequence[int] | None
    fit: str
    keep_aspect: bool
    spacing: float | None
    plane: str
    slices: str
    keep_3d: bool
    window: tuple[float, float] | None
    normalize: str | None
    classes: int | str | Sequence[str] | None
    split: str | None


class Plan(NamedTuple):
    """The list, what its patches are, and what the data set's writer is told.

    Attributes:
        datalist: the list.
        options: of every patch.
        named: the classes' names came from a label file.
        split: the rule.
        settings: keywords of :class:`.prepared.writer.PreparedDatasetWriter`.
        notes: what a user should know, in sentences.
    """

    datalist: DataList
    options: PatchOptions
    named: bool
    split: Split
    settings: dict[str, Any]
    notes: list[str]

    def writer(self, out_dir: str | os.PathLike[str]) -> PreparedDatasetWriter:
        """The writer of this data set at ``out_dir``."""
        return PreparedDatasetWriter(out_dir, **self.settings)


def plan_datalist(path: str | os.PathLike[str], **given: Unpack[DatalistOptions]) -> Plan:
    """Read the list, and one image of it where the list does not say everything.

    Raises:
        InputError: a mistake in the list or in the options; no image of the list can be read.
    """
    options = _patch_options(given)
    datalist = read_datalist(path, given.get("root"))
    split, rule = _split(datalist, given)
    sample = _first_readable(datalist.entries)
    count = sample.scan.array.shape[0]
    if datalist.channels is not None and len(datalist.channels) != count:
        raise InputError(
            f"{path} names {len(datalist.channels)} channels ({', '.join(datalist.channels)}), the first image has "
            f"{count}; name as many, or list a file for each."
        )
    channels = datalist.channels or (("image",) if count == 1 else tuple(f"channel {c + 1}" for c in range(count)))
    found: dict[int, str] = {}
    for names in sample.names:
        found = {**{value: name for value, name in names.items() if value > 0}, **found}
    named = given.get("classes") is None and datalist.classes is None and bool(found)
    classes = _classes(given.get("classes"), datalist, found)
    notes = list(datalist.notes)
    if given.get("classes") is None and datalist.classes is None and not found:
        notes.append("nothing says which classes there are: label value 1 is the foreground, any other is refused")
    integers = options.window is not None and _is_integral(sample.scan.array, options.window)
    options = options._replace(channels=count, classes=classes, integers=integers)
    about = datalist.about
    settings = {
        "name": about.get("name") or Path(path).resolve().parent.name or "datalist",
        "source": ", ".join(about[key] for key in ("description", "reference") if key in about) or f"{Path(path).name}",
        "options": {
            "list": os.fspath(path),
            "list_sha256": datalist.sha256,
            "root": None if given.get("root") is None else os.fspath(given["root"] or ""),
            "licence": about.get("licence") or about.get("license"),
            "raters": list(datalist.raters),
            "split": rule,
            "normalize": "none" if options.window else "image",
            "percentiles": None if options.window else list(PERCENTILES),
            **{key: value for key, value in options._asdict().items() if key not in ("classes", "channels")},
        },
        "channels": channels,
        "classes": classes,
        "raters": len(datalist.raters),
        "intensity_window": options.window or (0.0, 1.0),
        "image_dtype": "int16" if integers else "float32",
        "patch_size": options.size,
        "origin": datalist.root,
        "split": split,
        **writer_options(given),
    }
    return Plan(datalist, options, named, split, settings, notes)


def _patch_options(given: DatalistOptions) -> PatchOptions:
    keep_3d = given.get("keep_3d", False)
    size = given.get("patch_size")
    axes = 3 if keep_3d else 2
    if size is None and keep_3d:
        raise InputError("--keep-3d found without a patch size, rows, columns and slices expected; give --patch-size.")
    size = tuple(int(n) for n in size or (128, 128))
    if len(size) != axes or not all(1 <= n <= 4096 for n in size):
        raise InputError(
            f"patch size {' '.join(map(str, size))} found, {axes} numbers from 1 to 4096 expected"
            f"{'' if keep_3d else ' (3 with --keep-3d)'}; correct --patch-size."
        )
    chosen: dict[str, tuple[str, Sequence[str]]] = {
        "fit": (given.get("fit", "crop"), FITS),
        "plane": (given.get("plane", "axial"), PLANES),
        "slices": (given.get("slices", "foreground"), SLICES),
    }
    for key, (value, known) in chosen.items():
        if value not in known:
            raise InputError(f"--{key} {value} found, one of {', '.join(known)} expected; correct it.")
    spacing, window, normalize = given.get("spacing"), given.get("window"), given.get("normalize")
    if spacing is not None and not 0.001 <= spacing <= 100:
        raise InputError(f"--spacing {spacing} found, 0.001 to 100 mm expected; correct it.")
    if given.get("keep_aspect") and chosen["fit"][0] != "resize":
        raise InputError("--keep-aspect found without --fit resize, both expected together; add or remove one.")
    if normalize not in (None, "image", "none"):
        raise InputError(f"--normalize {normalize} found, image or none expected; correct it.")
    if normalize == "image" and window is not None:
        raise InputError("--normalize image and --window found, one of them expected; leave out the other.")
    if normalize == "none" and window is None:
        raise InputError("--normalize none found without a window, one expected; give --window LOW HIGH.")
    if window is not None:
        window = (float(window[0]), float(window[1]))
        if not (np.isfinite(window).all() and window[0] < window[1]):
            raise InputError(f"--window {window[0]:g} {window[1]:g} found, LOW below HIGH expected; correct it.")
    return PatchOptions(
        size=size,
        fit=chosen["fit"][0],
        keep_aspect=bool(given.get("keep_aspect", False)),
        spacing=spacing,
        plane=chosen["plane"][0],
        slices=chosen["slices"][0],
        keep_3d=keep_3d,
        window=window,
    )


def _first_readable(entries: Sequence[Entry]) -> LoadedCase:
    """The first entry whose image and a label can be read: what the list leaves open is read off it."""
    first: InputError | None = None
    for entry in entries:
        try:
            return load_case(entry)
        except InputError as error:
            first = first or error
    raise InputError(f"none of {len(entries)} entries could be read, at least one expected; the first: {first}")


def _classes(given: int | str | Sequence[str] | None, datalist: DataList, found: Mapping[int, str]) -> tuple[str, ...]:
    if given is not None:
        if isinstance(given, str):
            number = given.isascii() and given.isdigit() and len(given) < 5
            given = int(given) if number else [name.strip() for name in given.split(",")]
        return as_classes(given if isinstance(given, int) else list(given), "--classes")
    if datalist.classes is not None:
        return datalist.classes
    return as_classes({0: "background", **found}, "the first label file") if found else as_classes(2, "--classes")


def _is_integral(array: np.ndarray, window: tuple[float, float]) -> bool:
    wide = window[1] - window[0] >= _NARROW and -32768 <= window[0] < window[1] <= 32767
    return wide and (array.dtype.kind in "iub" or bool((np.rint(array) == array).all()))


def _split(datalist: DataList, given: DatalistOptions) -> tuple[Split, str]:
    """The rule, and its name for the options."""
    sections = {entry.section for entry in datalist.entries}
    rule = given.get("split") or ("list" if len(sections) > 1 or datalist.has_folds else "patient")
    name = datalist.path.name
    if rule == "patient":
        return random_split(given), rule
    if rule == "site":
        lost = [entry.where for entry in datalist.entries if not entry.columns.get("site")]
        if lost:
            raise InputError(f"{datalist.path}: {lost[0]} has no 'site', one expected for --split site; add it.")
        return random_split(given, by="site"), rule
    if rule == "list":
        fold_of: dict[str, str] = {}
        first: dict[str, Entry] = {}
        for entry in datalist.entries:
            before = first.setdefault(entry.patient, entry)
            if fold_of.setdefault(entry.patient, entry.fold) != entry.fold:
                raise InputError(
                    f"{datalist.path}: patient {entry.patient} is in {before.fold!r} by {before.where} and in "
                    f"{entry.fold!r} by {entry.where}, one fold expected; correct it, or give --split patient."
                )
        return GivenSplit(fold_of, fold_count(fold_of), f"sections and folds of {name}"), rule
    path = Path(rule)
    if path.suffix.lower() not in (".json", ".csv"):
        raise InputError(f"--split {rule} found, patient, site, list or a .json or .csv file expected; correct it.")
    return read_split(path, (entry.patient for entry in datalist.entries)), os.fspath(path)
