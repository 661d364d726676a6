"""Writing a prepared data set: unit by unit, resumable, and all of it or nothing."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

import numpy as np

from ... import __version__
from ...errors import InputError
from .format import CASE_COLUMNS, FORMAT_VERSION, check_patches, layout
from .splits import DEFAULT_SPLIT, TEST, Split, split_hash
from .target import check_partial, check_target, check_writable, plain_os_errors
from .units import Summary, open_unit, read_meta

__all__ = ["PreparedDatasetWriter"]

# What one run of the preparation must share with another to continue it.
_SIGNATURE = "partial.json"


class PreparedDatasetWriter:
    """Collects units (a patient, a scan) in ``<out_dir>.partial/`` and turns them into a prepared data set.

    A unit is stored whole or not at all, so a killed preparation goes on where it stopped: ask :meth:`has` first.
    The writer can be pickled, and several processes may write different units at once. :meth:`finish` is called
    once, by one process. Its result depends on the units only, not on the order in which they were written.

    Args:
        out_dir: the folder to make. It must not exist, or be empty, or be a prepared data set and ``overwrite``.
        name: of the data set, for example ``"lidc"``.
        source: where the data came from, in words.
        options: what else shaped the patches; must go into JSON. A partial folder made with other options is refused.
        channels: C names of the image channels.
        classes: names of the label values 0, 1, ...; the first is the background. Two or more.
        raters: R, number of rater slots.
        intensity_window: (low, high) that a loader maps to [0, 1].
        image_dtype: ``"int16"`` (floating values are rounded) or ``"float32"``.
        patch_size: spatial shape of a patch.
        origin: where the raw files lie. A partial folder made of others is refused; not kept in dataset.json.
        split: the rule that deals patients to testing and to cross-validation folds.
        overwrite: replace a prepared data set at ``out_dir`` (only when the new one is complete).
        command: the command line that makes this set, for dataset.json.

    Raises:
        InputError: ``out_dir`` is taken; the partial folder was made with other options; nothing can be written there.
    """

    def __init__(
        self,
        out_dir: str | os.PathLike[str],
        *,
        name: str,
        source: str,
        options: Mapping[str, Any],
        channels: Sequence[str],
        classes: Sequence[str],
        raters: int,
        intensity_window: tuple[float, float],
        image_dtype: str = "int16",
        patch_size: Sequence[int] = (128, 128),
        origin: str | os.PathLike[str] | None = None,
        split: Split = DEFAULT_SPLIT,
        overwrite: bool = False,
        command: str | None = None,
    ) -> None:
        self.out_dir = Path(out_dir)
        if self.out_dir.name in ("", ".."):  # "." and the like: what lies beside it goes by its own name
            self.out_dir = Path(os.path.abspath(out_dir))
        self.partial = self.out_dir.parent / f"{self.out_dir.name}.partial"
        self.units = self.partial / "units"
        self.split = split
        self.overwrite = overwrite
        self.command = command
        low, high = (float(v) for v in intensity_window)
        if not (np.isfinite([low, high]).all() and low < high):
            raise InputError(f"intensity window ({low}, {high}) found, low < high expected; correct the window.")
        if len(classes) < 2 or len(classes) > 256:
            raise InputError(f"{len(classes)} classes found, 2 to 256 expected; name the background as the first one.")
        if image_dtype not in ("int16", "float32"):
            raise InputError(f"image type {image_dtype!r} found, 'int16' or 'float32' expected; choose one of them.")
        if raters < 1 or not channels:
            raise InputError(
                f"{raters} raters and {len(channels)} channels found, at least one of each expected; correct them."
            )
        signature = {
            "format_version": FORMAT_VERSION,
            "name": name,
            "source": source,
            "options": dict(options),
            "tool_version": __version__,
            "channels": list(channels),
            "classes": list(classes),
            "raters": int(raters),
            "intensity_window": [low, high],
            "image_dtype": image_dtype,
            "patch_size": [int(s) for s in patch_size],
            "folds": split.describe(),
        }
        # Through JSON and back, so that it compares equal to what an earlier run wrote (tuples, Path ...).
        self.signature: dict[str, Any] = json.loads(json.dumps(signature, default=str))
        self._begun = {**self.signature, "origin": None if origin is None else os.path.realpath(origin)}
        check_target(self.out_dir, overwrite)
        check_partial(self.partial, self.units, self.partial / _SIGNATURE, self._begun)
        check_writable(self.units / _SIGNATURE if self.units.is_dir() else self.partial)

    def has(self, unit: str) -> bool:
        """Whether the unit is already stored, by this run or an earlier one."""
        return self._unit_path(unit).is_file()

    def expect(self, units: Iterable[str]) -> None:
        """Refuse to continue a run that stored other units than these.

        Raises:
            InputError: a unit is stored that is not among them; it is named.
        """
        known = set(units)
        for name in sorted(unquote(path.stem) for path in self.units.glob("*.npz")):
            if name not in known:
                raise InputError(
                    f"{self.partial} holds {name}, which is not among the {len(known)} cases of this run, the same raw "
                    "files expected to continue it; repeat that command or delete the folder."
                )

    def write(
        self,
        unit: str,
        images: np.ndarray,
        labels: np.ndarray,
        rater_valid: np.ndarray,
        cases: Sequence[Mapping[str, Any]],
        skipped: Mapping[str, int] | None = None,
        excluded: Mapping[str, int] | None = None,
        problems: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        """Store one unit of m patches (m = 0 says: looked at, nothing there). Atomic.

        Args:
            unit: its name; the patches of the finished set are ordered by it.
            images: (m, C, *S) intensities.
            labels: (m, R, *S) class of each pixel.
            rater_valid: (m, R) bool, False where the rater did not look at the patch.
            cases: m rows with ``case``, ``patient``, ``slice`` and what else cases.csv shall hold.
            skipped: reason -> count of what could not be used; summed up in the report, kept over a restart.
            excluded: reason -> count of what the data set's rule leaves out (no defect).
            problems: sentences that name the files behind ``skipped``.
            notes: what was done to them; the report counts how many units say the same.

        Raises:
            InputError: wrong shapes, NaN, labels outside the classes, values that do not fit; disk full.
        """
        images, labels, rater_valid = check_patches(self.signature, unit, images, labels, rater_valid, cases)
        rows = []
        for row, label, valid in zip(cases, labels, rater_valid):
            drew = int((label.reshape(len(valid), -1).any(axis=1) & valid).sum())
            rows.append({**{key: str(value) for key, value in row.items()}, "raters": str(drew)})
        told = {"skipped": dict(skipped or {}), "excluded": dict(excluded or {}), "problems": list(problems)}
        told["notes"] = list(notes)
        meta = json.dumps({"cases": rows, **told})
        self._begin_partial()
        with self._replacing(self._unit_path(unit)) as file:
            np.savez(file, images=images, labels=labels, rater_valid=rater_valid, meta=np.array(meta))

    def finish(self, report: Mapping[str, Any] | None = None) -> Path:
        """Make the data set of all stored units; the last act renames it to ``out_dir``.

        Memory does not grow with the number of units: rows and pixels are streamed, one unit at a time. Only names of
        patients and the report are held.

        Args:
            report: ``{"read": count, "skipped": {reason: count}, "excluded": ..., "problems": [sentence], ...}``; the
                units' own are added.

        Returns:
            ``out_dir``.

        Raises:
            InputError: no patch at all, a damaged unit, a patient in two folds, disk full, or somebody made
                ``out_dir`` meanwhile.
        """
        paths = [path for _, path in sorted((unquote(path.stem), path) for path in self.units.glob("*.npz"))]
        summary = Summary(report or {}, self.split.by)
        for path in paths:
            summary.add(read_meta(path))
        if not summary.count:
            shutil.rmtree(self.partial, ignore_errors=True)
            raise InputError(f"no patch found ({summary.why_none()}), at least one expected; check the raw folder.")
        fold_of = summary.fold_of_patient(self.split.assign(summary.groups))

        target = self.partial / "finished"
        with self._plain_os_errors():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            hashes = self._stream(paths, target, summary.count)
            self._write_cases(paths, target, list(summary.columns), fold_of)
            told = summary.report()
            if notes := [*_missing_sections(fold_of, self.split.folds), *told.get("notes", [])]:
                told["notes"] = notes
            info = {
                **self.signature,
                "command": self.command,
                "count": summary.count,
                "patients": len(fold_of),
                "folds": {**self.signature["folds"], "split_hash": split_hash(fold_of)},
                "sha256": hashes,
                "report": told,
            }
            with self._replacing(target / "dataset.json") as file:
                file.write((json.dumps(info, indent=2, default=str) + "\n").encode())
            self._publish(target)
        return self.out_dir

    def _stream(self, paths: Sequence[Path], target: Path, count: int) -> dict[str, str]:
        """Concatenate the units' arrays along the first axis; returns the SHA-256 of each file."""
        hashes: dict[str, str] = {}
        for key, (shape, dtype) in layout(self.signature, count).items():
            # Plain writes, not a memory map: on a full disk a map dies of SIGBUS, a write raises ENOSPC.
            with open(target / f"{key}.npy", "wb") as file:
                sink = _HashingFile(file)
                header = {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(dtype)}
                np.lib.format.write_array_header_1_0(sink, header)
                for path in paths:
                    with open_unit(path) as arrays:
                        sink.write(np.ascontiguousarray(arrays[key], dtype).tobytes())
                _sync(file)
            hashes[f"{key}.npy"] = sink.digest.hexdigest()
        return hashes

    def _write_cases(
        self, paths: Sequence[Path], target: Path, columns: Sequence[str], fold_of: Mapping[str, str]
    ) -> None:
        with open(target / "cases.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, [*CASE_COLUMNS, *columns], restval="", lineterminator="\n")
            table.writeheader()
            for path in paths:
                for row in read_meta(path)["cases"]:
                    table.writerow({**row, "fold": fold_of[row["patient"]]})
            _sync(file)

    def _publish(self, target: Path) -> None:
        check_target(self.out_dir, self.overwrite)
        if self.out_dir.exists():
            old = self.partial / "replaced"  # in the one folder that is ours
            shutil.rmtree(old, ignore_errors=True)
            os.rename(self.out_dir, old)
        os.rename(target, self.out_dir)
        shutil.rmtree(self.partial, ignore_errors=True)

    def _begin_partial(self) -> None:
        # Only with the first unit, so that a preparation that finds nothing leaves nothing.
        if (self.partial / _SIGNATURE).is_file():
            return
        with self._plain_os_errors():
            self.units.mkdir(parents=True, exist_ok=True)
            with self._replacing(self.partial / _SIGNATURE) as file:
                file.write(json.dumps(self._begun, indent=2).encode())

    def _unit_path(self, unit: str) -> Path:
        return self.units / f"{quote(unit, safe='')}.npz"

    @contextlib.contextmanager
    def _replacing(self, path: Path) -> Iterator[IO[bytes]]:
        """A temporary file that takes the place of ``path`` once it is written in full."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with self._plain_os_errors():
            try:
                with open(temporary, "wb") as file:
                    yield file
                    _sync(file)
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise

    def _plain_os_errors(self) -> contextlib.AbstractContextManager[None]:
        return plain_os_errors(self.partial, "free some and repeat the command, what is stored is kept")


def _missing_sections(fold_of: Mapping[str, str], folds: int) -> list[str]:
    """Sentences on what the loader will not find: patients to test on, or a validation of its own."""
    others = [fold for fold in fold_of.values() if fold != TEST]
    notes = []
    if len(others) == len(fold_of):
        notes.append(f"no patient for testing among {len(fold_of)}: nothing of this set can be evaluated as unseen")
    # as PreparedDataset.indices has it
    shared = [str(fold) for fold in range(folds) if others.count(str(fold)) in (0, len(others))]
    if not others:
        notes.append("no patient for training: all are for testing")
    elif shared:
        notes.append(
            f"no patient for validation alone in fold {', '.join(shared)}: training and validation are the same "
            f"patients there ({len(others)} in all); prepare more patients"
        )
    return notes


class _HashingFile:
    """Writes through to a file and digests what passes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
