"""Our evaluations as the papers' lines are: folds and seeds of one model on one data set, with what is known of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aleatoric.errors import InputError
from aleatoric.report.collect import Evaluation
from aleatoric.statistics import Spread, across_runs

__all__ = ["Ours", "gather"]


@dataclass(frozen=True)
class Ours:
    """Folds and seeds of one model on one data set."""

    name: str  # BUNDLE or BUNDLE:VARIANT
    label: str  # the same, or what tells two of one name apart
    dataset: str
    runs: list[Evaluation]
    settings: dict[str, Any]  # of network and training, what all runs agree in

    @property
    def record(self) -> Any:
        """metrics.json of the first run; all agree in what is asked of it."""
        return self.runs[0].record

    def spread(self, figure: str) -> Spread | None:
        """Over folds and seeds; None where a run lacks the figure."""
        values: dict[tuple[object, object], float] = {}
        for number, run in enumerate(self.runs):
            training = run.record.get("training") or {"fold": f"run {number}", "seed": None}
            values[training["fold"], training["seed"]] = run.metrics.get(figure, math.nan)
        return None if any(map(math.isnan, values.values())) else across_runs(values)


def gather(evaluations: Iterable[Evaluation]) -> list[Ours]:
    """Evaluations of one model on one data set together."""
    groups: dict[tuple[str, str, str], list[Evaluation]] = {}
    for one in evaluations:
        key = (one.model, str(one.record["dataset"].get("name")), str(one.record.get("split_hash")))
        groups.setdefault(key, []).append(one)
    found = []
    for (label, dataset, _), runs in groups.items():
        about = runs[0].record["model"]
        bundle, variant = str(about["bundle"]).removesuffix("_segmentation"), about.get("variant")
        every = [_settings(run) for run in runs]
        shared = {key: value for key, value in every[0].items() if all(one.get(key) == value for one in every)}
        found.append(Ours(f"{bundle}:{variant}" if variant else bundle, label, dataset, runs, shared))
    return found


def _settings(run: Evaluation) -> dict[str, Any]:
    """What metrics.json says of the training, otherwise run.json, otherwise fold.json (of cross_validate.py, above it).

    Older files lack the recipe.
    """
    found: dict[str, Any] = {}
    for path in (run.folder.parent / "fold.json", run.folder / "run.json"):
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                found |= {**record["settings"], **(record.get("recipe") or {})}
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path} has no settings to read ({error}); restore the file, or remove it."
                ) from error
    training = run.record.get("training") or {}
    found |= {**(training.get("settings") or {}), **(training.get("recipe") or {})}
    if found.get("raters") is None:  # in a config: all that the data set has
        found["raters"] = run.record["dataset"].get("raters")
    return {key: value for key, value in found.items() if key != "raters" or value is not None}
