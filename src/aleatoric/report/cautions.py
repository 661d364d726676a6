"""What a reader must know before the numbers: models that were not asked the same, answers that are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..statistics import same_folds
from .figures import figure
from .units import has_unit

if TYPE_CHECKING:
    from .models import Model

__all__ = ["asked_alike", "cautions"]

_SELDOM = 0.05  # a share of the samples that show something


def cautions(models: Sequence[Model]) -> list[str]:
    """A sentence each."""
    return [*_answers(models), *asked_alike(models)[2]]


def _answers(models: Sequence[Model]) -> list[str]:
    """Models whose answers are none, or all the same: their overlap figures are those of an empty mask."""
    said = []
    for model in models:
        shown, drawn, diversity = (
            model.metrics.get(name, math.nan) for name in ("presence_samples", "presence_raters", "diversity")
        )
        if shown < _SELDOM and drawn > 2 * shown:
            said.append(
                f"{model.name}: only {shown:.1%} of its samples show anything, of the raters' masks {drawn:.0%}: most "
                "figures are those of an empty mask, which agrees with every rater who drew nothing."
            )
        elif diversity == 0 and model.runs[0].record["num_samples"] > 1:
            said.append(f"{model.name}: the samples of a case are all the same.")
    return said


def asked_alike(models: Sequence[Model]) -> tuple[list[Model], dict[str, str], list[str]]:
    """Which models may be compared: the most of them that were scored on the same cases.

    Returns:
        those models; figures that are not compared, with the reason; and sentences on all that is not alike.
    """
    different = _defined_differently(models)
    said = [f"{figure(name).title} {sentence}" for name, sentence in different.items()]
    groups: dict[Any, list[Model]] = {}
    for model in models:
        first = model.runs[0].record["dataset"].get("sha256") or {}
        groups.setdefault((tuple(sorted(first.items())), tuple(model.keys)), []).append(model)
    same = max(groups.values(), key=len)
    if len(groups) > 1:
        said.append(_apart(models, same))
    for key, words in (("num_samples", "samples per image"), ("temperature", "temperature"), ("conventions", "")):
        values = {model.name: model.runs[0].record.get(key) for model in models}
        if len(set(values.values())) > 1:
            each = "; ".join(f"{name}: {value}" for name, value in values.items())
            said.append(_UNLIKE[key] + f" ({each})." if words else _UNLIKE[key])
    known = [(model.name, list(model.trainings([]))) for model in same if model.trainings([])]
    other = [name for name, runs in known[1:] if not same_folds(known[0][1], runs)]
    if other:
        said.append(
            f"{', '.join(other)} and {known[0][0]} were not trained on the same folds, or not on each as often: "
            "part of their difference may come from that."
        )
    return same, different, said


_UNLIKE = {
    "num_samples": "The numbers of samples differ; GED (V-statistic) and EWD fall as samples are added, so part of a "
    "difference may come from that",
    "temperature": "The temperatures of sampling differ",
    "conventions": "The conventions on empty masks and missing raters are not worded alike in all evaluations: they "
    "were written by different versions.",
}


def _defined_differently(models: Sequence[Model]) -> dict[str, str]:
    found = {}
    spacings = {model.name: model.runs[0].record.get("spacing") for model in models}
    for name in dict.fromkeys(name for model in models for name in model.metrics):
        if has_unit(name) and len({str(spacing) for spacing in spacings.values()}) > 1:
            said = "; ".join(
                f"{model}: {'pixels' if s is None else f'mm, spacing {s}'}" for model, s in spacings.items()
            )
            found[name] = f"is in other units and is not compared ({said})."
            continue
        texts = {model.name: model.definition(name) for model in models if name in model.metrics}
        if len(set(texts.values())) > 1:
            said = "; ".join(f'{model}: "{text}"' for model, text in texts.items())
            found[name] = f"is not defined alike and is not compared ({said})."
    return found


def _apart(models: Sequence[Model], same: Sequence[Model]) -> str:
    """Why some models are left out of the tests."""
    first = same[0].runs[0].record
    reasons = []
    for model in models:
        if model in same:
            continue
        record = model.runs[0].record
        if record["dataset"].get("sha256") != first["dataset"].get("sha256"):
            why = f"other data ({record['dataset'].get('name')}, {len(model.keys):,} cases)"
        elif record.get("split_hash") != first.get("split_hash"):
            why = f"another split ({str(record.get('split_hash'))[:12]})"
        elif record["section"] != first["section"]:
            why = f"the section {record['section']}"
        else:
            why = f"{len(model.keys)} cases, not the same"
        reasons.append(f"{model.name}: {why}")
    head = f"Not all models were scored on the same cases ({'; '.join(reasons)}): "
    if len(same) < 2:
        return head + "their figures stand side by side, and no test is made."
    return head + f"only {', '.join(model.name for model in same)} are compared."
