"""The tables of ``cross_validate.py``, from the folders of finished folds; refused where no average may mix them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aleatoric.errors import InputError
from aleatoric.files import write_atomically

FIGURES = ("ewd", "ewd_dice", "ged_unbiased", "gini_index", "effective_rank", "diversity", "dice")
# Said once above the table where all models share them; what differs is said model by model.
_HEAD = (
    *("max_epochs", "warmup_epochs", "learning_rate", "batch_size", "val_interval", "early_stopping_patience"),
    *("filters", "num_convs", "norm", "latent_dim", "num_samples", "overlay"),
)
_RESULT = ("split_hash", "section", "dataset")


@dataclass(frozen=True)
class Run:
    """One finished fold."""

    folder: Path
    record: dict[str, Any]  # fold.json: model, fold, seed, settings, command, seconds
    result: dict[str, Any]  # metrics.json
    best_epoch: int | None  # of the lowest validation loss, whose weights were evaluated
    epochs: int

    @property
    def model(self) -> str:
        """As named on the command line."""
        return str(self.record["model"])


def collect(out: Path) -> list[Run]:
    """The finished folds below ``out``. Raises InputError where they may not be averaged."""
    runs = []
    for path in sorted(out.glob("*/fold*_seed*/fold.json")):
        metrics = path.parent / "eval" / "metrics.json"
        if metrics.is_file():
            record, result = (json.loads(file.read_text(encoding="utf-8")) for file in (path, metrics))
            runs.append(Run(path.parent, record, result, *_course(path.parent / "eval" / "training.csv")))
    first: dict[str, Run] = {}
    for run in runs:
        _refuse_other(runs[0], run, *({key: one.result[key] for key in _RESULT} for one in (runs[0], run)))
        twin = first.setdefault(run.model, run)
        _refuse_other(twin, run, twin.record["settings"], run.record["settings"])
    return runs


def _course(path: Path) -> tuple[int | None, int]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    losses = [(float(row["val_loss"]), int(float(row["epoch"]))) for row in rows if row.get("val_loss")]
    best = min((pair for pair in losses if not math.isnan(pair[0])), default=(0.0, None))[1]
    return best, int(float(rows[-1]["epoch"]))


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Where both say something and not the same: "key value and value"."""
    return [f"{key} {first[key]} and {second[key]}" for key in first if key in second and first[key] != second[key]]


def _refuse_other(first: Run, run: Run, one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    wrong = differences(one, two)
    if wrong:
        raise InputError(
            f"{first.folder} and {run.folder} differ in {'; '.join(wrong)}, and no average may mix them: move one of "
            f"them away, or give another --out."
        )


def csv_table(runs: Sequence[Run]) -> str:
    """A row per model, fold and seed."""
    metrics = list(dict.fromkeys(name for run in runs for name in run.result["metrics"]))
    text = io.StringIO()
    head = ["model", "fold", "seed", *metrics, "best_epoch", "epochs", "seconds", "cases", "section", "split_hash"]
    writer = csv.DictWriter(text, head, lineterminator="\n")
    writer.writeheader()
    for run in runs:
        writer.writerow(
            {
                **{key: run.record[key] for key in ("model", "fold", "seed")},
                **{name: f"{value:.6g}" for name, value in run.result["metrics"].items()},
                **{key: run.result[key] for key in ("cases", "section", "split_hash")},
                "best_epoch": run.best_epoch,
                "epochs": run.epochs,
                "seconds": f"{run.record['seconds']:.1f}",
            }
        )
    return text.getvalue()


def summary(runs: Sequence[Run]) -> str:
    """Markdown: the settings, then a row per model, mean and standard deviation over its folds and seeds."""
    if not runs:
        return "no fold is finished yet\n"
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.model, []).append(run)
    settings = {name: group[0].record["settings"] for name, group in groups.items()}
    first, result = next(iter(settings.values())), runs[0].result
    shared = {key for key in first if all(key in one and one[key] == first[key] for one in settings.values())}
    lines = [f"- `{command}`" for command in dict.fromkeys(run.record["command"] for run in runs)]
    data = f"{result['dataset']['name']}, {result['cases']} cases of the section {result['section']}"
    lines.append(f"- {data}, split {result['split_hash']}")
    lines.append("- all models: " + _listed({key: first[key] for key in _HEAD if key in shared}))
    for name, group in groups.items():
        own = {key: value for key, value in settings[name].items() if key not in shared}
        best = [run.best_epoch for run in group if run.best_epoch is not None]
        minutes = np.mean([run.record["seconds"] for run in group]) / 60
        lines.append(
            f"- {name}: epochs run {_span([run.epochs for run in group])}, best {_span(best)}, {minutes:.1f} min a "
            f"training" + (f"; {_listed(own)}" if own else "")
        )
    table = [["model", "runs", *FIGURES]]
    for name, group in groups.items():
        values = (np.array([run.result["metrics"].get(key, math.nan) for run in group]) for key in FIGURES)
        table.append([name, str(len(group)), *map(mean_and_deviation, values)])
    widths = [max(map(len, column)) for column in zip(*table)]
    table.insert(1, ["-" * width for width in widths])
    lines += ["", *("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in table)]
    return "\n".join(lines) + "\n"


def mean_and_deviation(values: np.ndarray) -> str:
    """Of the runs (n,), the deviation with n - 1 in its divisor; one run has none, a figure that a run lacks is "-"."""
    if np.isnan(values).any():
        return "-"
    return f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else "")


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items())


def _span(values: Sequence[int]) -> str:
    if not values:
        return "unknown"
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def write_tables(out: Path) -> str:
    """cross_validation.csv and .md of all that is finished below ``out``; returns the latter's text."""
    runs = collect(out)
    text = summary(runs)
    write_atomically(out / "cross_validation.csv", csv_table(runs))
    write_atomically(out / "cross_validation.md", text)
    return text
