"""metrics.json and per_case.csv as text: what was evaluated, how, and what came out, with its uncertainty."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.prepared.reading import PreparedDataset
from ..errors import InputError
from ..files import json_text, sha256
from ..metrics.definitions import definition
from ..runs import RUN_FILE, describe_bundle, read_run, versions

__all__ = ["FORMAT_VERSION", "Source", "case_table", "result_of", "source_of"]

FORMAT_VERSION = 2
CONVENTIONS = (
    "two empty masks have distance 0 and Dice 1, an empty and another one 1 and 0; a missing rater is left out; a case "
    "counts once, a case where a figure is undefined not at all; class maps: mean over the foreground classes, of "
    "entropies and cross-entropies over all; intervals: patients resampled with all their cases"
)


class Source(NamedTuple):
    """Where the answers came from."""

    model: dict[str, Any]  # bundle, version, variant, checkpoint
    training: dict[str, Any] | None  # fold, seed, settings and recipe of the training, where it left a record


def source_of(output_dir: Path, bundle_root: Path | None, checkpoint: Path | None, variant: str | None) -> Source:
    """The model of a bundle and the training that it came from.

    Args:
        output_dir: of the evaluation; a training that wrote into the same folder is the model's, if its checkpoints lie
            where ``checkpoint`` does.
        bundle_root: the bundle; None: unknown.
        checkpoint: the weights; None: untrained.
        variant: the overlay that makes another model of the bundle.
    """
    about = describe_bundle(bundle_root) if bundle_root is not None else {}
    model = {
        "bundle": about.get("folder"),
        "version": about.get("version"),
        "variant": variant,
        "checkpoint": None if checkpoint is None else checkpoint.name,
        "checkpoint_sha256": None if checkpoint is None or not checkpoint.is_file() else sha256(checkpoint),
    }
    training = None
    if checkpoint is not None and (output_dir / RUN_FILE).is_file():
        try:
            run = read_run(output_dir)
        except InputError:  # of another version, or damaged: the evaluation is none the worse
            return Source(model, None)
        if run.ckpt_dir.resolve() == checkpoint.parent.resolve():
            training = {"fold": run.fold, "seed": run.seed, "settings": run.settings, "recipe": run.recipe}
    return Source(model, training)


def result_of(
    source: Source,
    dataset: PreparedDataset,
    section: str,
    fold: int,
    rows: Sequence[Mapping[str, str]],
    options: Mapping[str, Any],
    figures: Mapping[str, np.ndarray],
    metrics: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    bootstrap: Mapping[str, Any],
    curves: Mapping[str, Any],
    warnings: Sequence[str],
) -> str:
    """The text of metrics.json; see the arguments' places in it. Figures that are not finite are null.

    ``figures`` are those of the single cases: of how many each is a mean, and the standard deviation over them, stand
    beside the means.
    """
    info = dataset.info
    result = {
        "format_version": FORMAT_VERSION,
        "model": source.model,
        "training": source.training,
        "dataset": {key: info.get(key) for key in ("name", "source", "sha256", "classes", "raters", "patch_size")},
        "section": section,
        "fold": fold,
        "split_hash": info["folds"]["split_hash"],
        "cases": len(rows),
        "patients": len({row["patient"] for row in rows}),
        **options,
        "conventions": CONVENTIONS,
        "definitions": {name: definition(name) for name in metrics},
        "metrics": metrics,
        "intervals": intervals,
        "defined_cases": {name: int(np.isfinite(values).sum()) for name, values in figures.items()},
        "deviations": {name: _deviation(values) for name, values in figures.items()},
        "bootstrap": bootstrap,
        "curves": curves,
        "warnings": list(warnings),
        "versions": versions(),
    }
    return json_text(result)


def _deviation(values: np.ndarray) -> float:
    """Standard deviation over the cases that have a value, n - 1 in its divisor."""
    known = values[np.isfinite(values)].astype(np.float64)
    return float(known.std(ddof=1)) if len(known) > 1 else math.nan


def case_table(rows: Sequence[Mapping[str, str]], figures: Mapping[str, np.ndarray]) -> str:
    """The text of per_case.csv: the columns of the data set's cases.csv, then one per figure."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*rows[0], *figures])
    columns = np.stack([np.asarray(values, dtype=np.float64) for values in figures.values()], axis=1)
    for row, values in zip(rows, columns):
        writer.writerow([*row.values(), *(f"{value:.6g}" for value in values)])
    return table.getvalue()
