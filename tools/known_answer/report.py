"""The measurements as text for people, as JSON for programs, and as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from aleatoric.visualize.drawing import RATER_COLORS, new_figure
from known_answer.scoring import ANSWERS, figures, reliability, standard_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Run", "as_json", "reliability_figure", "table"]

FIGURES = {  # name -> heading and decimals
    "ged": ("GED", 4),
    "total_variation": ("TV", 3),
    "presence_error": ("ECE", 3),
    "presence_brier": ("Brier", 4),
}


class Run(NamedTuple):
    """A model, or a reference, with one seed."""

    name: str
    seed: int
    values: dict[str, Tensor]  # of scoring.per_image
    extras: dict[str, float]  # terms of the objective, effective rank, seconds ...
    history: list[dict[str, float]]


def _grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    return groups


def _summary(runs: Sequence[Run], number: int) -> dict[str, tuple[float, float]]:
    """Mean over the seeds and its standard error: over the seeds where there are several, else over the images."""
    each = [figures(run.values, number) for run in runs]
    errors = standard_errors(runs[0].values, number)
    result = {}
    for name in each[0]:
        found = torch.stack([one[name] for one in each])
        error = found.std() / math.sqrt(len(found)) if len(found) > 1 else errors[name]
        result[name] = (float(found.mean()), float(error))
    return result


def _mean(runs: Sequence[Run], key: str) -> float | None:
    found = [run.extras[key] for run in runs if key in run.extras]
    return sum(found) / len(found) if found else None


def table(runs: Sequence[Run], number: int) -> str:
    """Aligned tables: the figures with their standard errors, how often each answer was given, how the training went.

    Args:
        runs: references and models, in the rows' order.
        number: N, samples per image.
    """
    groups = _grouped(runs)
    summaries = {name: _summary(group, number) for name, group in groups.items()}
    heads = [heading for heading, _ in FIGURES.values()]
    rows = [["", *heads, "ER", "-log p", "KL"]]
    for name, group in groups.items():
        cells = [_with_error(*summaries[name][key], decimals) for key, (_, decimals) in FIGURES.items()]
        extras = {key: _mean(group, key) for key in ("effective_rank", "latent_dim", "likelihood", "kl")}
        shown = {key: "-" if value is None else f"{value:.2f}" for key, value in extras.items()}
        rank = shown["effective_rank"] + ("" if extras["latent_dim"] is None else f" of {extras['latent_dim']:.0f}")
        rows.append([name, *cells, rank, shown["likelihood"], shown["kl"]])
    truth = runs[0].values["truth"].mean(0)
    answers = [["", *ANSWERS], ["exact probabilities", *(f"{float(value):.3f}" for value in truth)]]
    for name in groups:
        answers.append([name, *(_with_error(*summaries[name][key], 3) for key in ANSWERS)])
    return "\n".join(aligned(part) for part in (rows, answers, _course(groups)) if part)


def _course(groups: Mapping[str, Sequence[Run]]) -> list[list[str]]:
    """Every term of the objective on held-out scenes after a quarter, a half ... of the first seed's training."""
    rows = []
    for name, group in groups.items():
        history = group[0].history
        at = [history[math.ceil(quarter * len(history) / 4) - 1] for quarter in (1, 2, 3, 4)] if history else []
        for term in (key for key in (at[0] if at else ()) if key not in ("step", "seconds")):
            rows.append([name, term, *(f"{record[term]:.2f}" for record in at)])
    return [["", "after", "1/4", "1/2", "3/4", "all steps"], *rows] if rows else []


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lines of columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) for row in rows]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _with_error(value: float, error: float, decimals: int) -> str:
    return f"{value:.{decimals}f} ±{error:.{decimals}f}"


def as_json(runs: Sequence[Run], number: int, head: Mapping[str, Any]) -> dict[str, Any]:
    """Everything in plain types; standard errors are over the images, seed by seed."""
    rows = []
    for run in runs:
        found, errors = figures(run.values, number), standard_errors(run.values, number)
        weight, mean_found, mean_true = reliability(run.values)
        rows.append(
            {
                "model": run.name,
                "seed": run.seed,
                "figures": {name: float(value) for name, value in found.items()},
                "standard_errors": {name: float(value) for name, value in errors.items()},
                "reliability": {
                    "share": weight.tolist(),
                    "found": mean_found.tolist(),
                    "true": mean_true.tolist(),
                },
                **run.extras,
                "history": run.history,
            }
        )
    return {**head, "runs": rows}


def reliability_figure(runs: Sequence[Run]) -> Figure:
    """Left: how often each model draws anything against the true probability. Right: how often each answer is given."""
    groups = _grouped(runs)
    figure = new_figure(11.0, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    left.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    width = 0.84 / (len(groups) + 1)
    truth = runs[0].values["truth"].mean(0).tolist()
    places = np.arange(len(ANSWERS))
    right.bar(places - 0.42 + width / 2, truth, width, color="black", label="exact")
    for number, (name, group) in enumerate(groups.items()):
        color = RATER_COLORS[(6, 1, 2, 3, 5, 0, 4)[number % 7]]
        lines = [reliability(run.values) for run in group]
        share, found, true = (torch.stack(part).mean(0).numpy(force=True) for part in zip(*lines))
        shown = share > 0
        style = ("solid", "dashed", "dotted")[number // 7 % 3]
        left.plot(true[shown], found[shown], color=color, linestyle=style, marker="o", markersize=2.5, linewidth=1.2)
        means = torch.stack([run.values["frequencies"].mean(0) for run in group]).mean(0).tolist()
        hatch = ("", "//", "..")[number // 7 % 3]
        right.bar(places - 0.42 + (number + 1.5) * width, means, width, color=color, hatch=hatch, label=name)
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="true probability that a rater draws anything", aspect="equal")
    left.set_ylabel("share of samples that are not empty")
    right.set_xticks(places, ANSWERS)
    right.set_ylabel("share of the samples")
    right.legend(fontsize=7, frameon=False)
    for axis in (left, right):
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    return figure
