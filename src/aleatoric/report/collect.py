"""Evaluations read back from their folders, named, and told which of them are runs of one model."""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import sha256
from ..runs import RUN_FILE, read_run
from ..tables import read_table

__all__ = ["FORMAT_VERSION", "Evaluation", "read_evaluations"]

#: Of metrics.json.
FORMAT_VERSION = 2
_NEEDED = ("model", "dataset", "section", "cases", "metrics", "definitions", "num_samples")
# Runs that differ in one of these are not one model's, whatever their bundle.
_SETTINGS = ("num_samples", "temperature", "section", "spacing")


@dataclass(frozen=True)
class Evaluation:
    """One trained network's answers to the cases of one section, scored.

    Attributes:
        folder: where metrics.json lies.
        label: a name that no other evaluation of the report has: ``"punet, fold 0, seed 1"``.
        model: what it shares with the other folds and seeds of its model: ``"punet"``.
        record: metrics.json.
        rows: the columns of per_case.csv that say which case it is, a row per case.
        figures: name -> (n,) float64, a value per case, NaN where the figure is undefined.
        npz: cases.npz, the cases that are shown, or None.
        training: training.csv, a row per epoch, or None.
        latents: latents.csv, a row per validation, or None.
        found_in: the folder that was asked for.
    """

    folder: Path
    label: str
    model: str
    record: Mapping[str, Any]
    rows: list[dict[str, str]]
    figures: dict[str, np.ndarray]
    npz: Path | None
    training: list[dict[str, float]] | None
    latents: list[dict[str, float]] | None
    found_in: Path

    @property
    def metrics(self) -> dict[str, float]:
        """Figures of the whole section, NaN where metrics.json has null."""
        return {name: math.nan if value is None else float(value) for name, value in self.record["metrics"].items()}

    @property
    def keys(self) -> list[tuple[str, ...]]:
        """What names each case, in every evaluation of the data set alike."""
        seen: Counter[tuple[str, ...]] = Counter()
        keys = []
        for row in self.rows:
            key = tuple(row.get(column, "") for column in ("patient", "case", "slice"))
            seen[key] += 1
            keys.append((*key, str(seen[key])))
        return keys


def read_evaluations(run_dirs: Iterable[str | os.PathLike[str]]) -> list[Evaluation]:
    """The evaluations in some folders, in the order of the folders.

    Args:
        run_dirs: each a folder with a metrics.json, or any folder above some: a bundle's (``eval/``), or that of
            ``tools/cross_validate.py`` (``MODEL/foldK_seedS/eval/``). A folder that is met twice counts once.

    Raises:
        InputError: no such folder, no evaluation in it, one of an older format, or damaged.
    """
    found: dict[Path, Evaluation] = {}
    for run_dir in map(Path, run_dirs):
        for path in _find(run_dir):
            if path.resolve() not in found:
                found[path.resolve()] = _read(path.parent, run_dir)
    if not found:
        raise InputError("found no folder to report on, expected at least one; give the folder of an evaluation.")
    return _named(list(found.values()))


def _find(folder: Path) -> list[Path]:
    """The metrics.json in a folder, otherwise all below it."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder, expected that of an evaluation (metrics.json in it) or one above it.")
    if (folder / "metrics.json").is_file():
        return [folder / "metrics.json"]
    paths = sorted(folder.rglob("metrics.json"))
    if not paths:
        raise InputError(
            f"there is no metrics.json in {folder} or below it: evaluate first (run evaluating), or give the folder "
            f"that an evaluation wrote to."
        )
    return paths


def _read(folder: Path, found_in: Path) -> Evaluation:
    path = folder / "metrics.json"
    again = "evaluate again with this version"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}): {again}, or restore the file.") from error
    version = record.get("format_version", 1) if isinstance(record, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(f"{path} has format version {version}, expected {FORMAT_VERSION}: {again}.")
    absent = [name for name in _NEEDED if name not in record]
    if absent:
        raise InputError(f"{path} lacks {', '.join(absent)}: {again}.")
    rows, figures = _cases(folder / "per_case.csv", record)
    bundle = str(record["model"].get("bundle") or "unnamed").removesuffix("_segmentation")
    variant = record["model"].get("variant")
    name = f"{bundle}:{variant}" if variant else bundle
    stale = _other_training(folder, record)
    if stale:
        record = record | {"warnings": [*(record.get("warnings") or []), stale]}
    optional = {part: folder / (f"{part}.csv" if not stale else "") for part in ("training", "latents")}
    return Evaluation(
        folder,
        name,
        name,
        record,
        rows,
        figures,
        npz=folder / "cases.npz" if (folder / "cases.npz").is_file() else None,
        training=(read_table(optional["training"]) or None) if optional["training"].is_file() else None,
        latents=(read_table(optional["latents"]) or None) if optional["latents"].is_file() else None,
        found_in=found_in,
    )


def _other_training(folder: Path, record: Mapping[str, Any]) -> str | None:
    """A sentence where the training in the folder is not the one whose weights were evaluated."""
    given = record["model"].get("checkpoint_sha256")
    if not (folder / RUN_FILE).is_file() or not given:
        return None
    try:
        weights = read_run(folder).ckpt_dir / str(record["model"].get("checkpoint"))
    except InputError:  # damaged, or of another version: it tells nothing
        return None
    if not weights.is_file() or sha256(weights) == given:
        return None
    return (
        "the weights in the folder of its training are no longer those that were evaluated, so the course of the "
        "training is left out: evaluate again."
    )


def _cases(path: Path, record: Mapping[str, Any]) -> tuple[list[dict[str, str]], dict[str, np.ndarray]]:
    """per_case.csv: which cases, and the figures of each."""
    again = "evaluate again"
    if not path.is_file():
        raise InputError(f"there is no {path} beside metrics.json, expected a row per case in it: {again}.")
    with path.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    if len(table) != record["cases"] or not table:
        raise InputError(f"{path} has {len(table)} cases, metrics.json says {record['cases']}: {again}.")
    names = [name for name in table[0] if name in record["metrics"]]
    try:
        figures = {name: np.array([float(row[name]) for row in table]) for name in names}
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} has a figure that is no number ({error}): {again}, or restore the file.") from error
    return [{name: text for name, text in row.items() if name not in figures} for row in table], figures


def _named(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """With labels that differ; folds and seeds of one model share ``model``."""
    groups: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault(evaluation.model, []).append(evaluation)
    renamed: dict[Path, Evaluation] = {}
    for name, group in groups.items():
        parts = _models(group)
        suffixes = _tails([part[0].found_in if len(part) > 1 else part[0].folder for part in parts])
        for part, suffix in zip(parts, suffixes):
            model = f"{name} ({suffix})" if suffix else name
            for evaluation, run in zip(part, _runs(part)):
                label = f"{model}, {run}" if run else model
                renamed[evaluation.folder] = replace(evaluation, model=model, label=label)
    return [renamed[evaluation.folder] for evaluation in evaluations]


def _models(group: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """Evaluations of one name as folds and seeds of one model; of several, where they cannot be one's."""
    if _is_one_model(group):
        return [list(group)]
    by_folder: dict[Path, list[Evaluation]] = {}
    for evaluation in group:
        by_folder.setdefault(evaluation.found_in.resolve(), []).append(evaluation)
    parts = []
    for part in by_folder.values():
        parts += [part] if _is_one_model(part) else [[evaluation] for evaluation in part]
    return parts


def _is_one_model(group: Sequence[Evaluation]) -> bool:
    if len(group) == 1:
        return True
    trainings = [evaluation.record.get("training") or {} for evaluation in group]
    runs = {(training.get("fold"), training.get("seed")) for training in trainings}
    if not all(trainings):
        return False
    return len(runs) == len(group) and all(_shared(one.record) == _shared(group[0].record) for one in group)


def _shared(record: Mapping[str, Any]) -> list[Any]:
    """What the folds and seeds of one model have in common: how it was asked, on which data, how it was trained."""
    data, training = record["dataset"], record.get("training") or {}
    return [
        *(record.get(key) for key in (*_SETTINGS, "definitions", "split_hash")),
        *(data.get(key) for key in ("name", "sha256")),
        *(training.get(key) for key in ("settings", "recipe")),
    ]


def _runs(part: Sequence[Evaluation]) -> list[str]:
    """Which fold and seed each is of; only what they differ in, nothing for a single one."""
    words: list[list[str]] = [[] for _ in part]
    for key in ("fold", "seed"):
        values = [(one.record.get("training") or {}).get(key) for one in part]
        if len(set(values)) > 1:
            for said, value in zip(words, values):
                said.append(f"{key} {value}")
    return [", ".join(said) for said in words]


def _tails(folders: Sequence[Path]) -> list[str]:
    """Of each path the part that tells it from the others; nothing for a single one."""
    if len(folders) == 1:
        return [""]
    paths = [folder.resolve().parts for folder in folders]
    shortest = min(map(len, paths))
    front = next((i for i in range(shortest) if len({parts[i] for parts in paths}) > 1), shortest)
    paths = [parts[front:] for parts in paths]
    shortest = min(map(len, paths))
    back = next((i for i in range(shortest) if len({parts[-1 - i] for parts in paths}) > 1), shortest)
    # of a/eval and b/eval the a and the b; of x and x/y the "." and the y
    return ["/".join(parts[: len(parts) - back]) or "." for parts in paths]
