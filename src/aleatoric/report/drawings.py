"""The pictures of a report, each with its caption and with its main numbers for who does not see it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..visualize import MOST_MODELS
from ..visualize.comparing import figure_svg
from . import captions
from .content import Picture
from .figures import figure, value_text
from .models import Model
from .units import area_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "area_pictures",
    "course_picture",
    "energy_picture",
    "latent_pictures",
    "letter_value_picture",
    "presence_picture",
    "reliability_pictures",
    "selection_pictures",
]


def _picture(name: str, drawn: Figure, alt: str, caption: str, left_out: Sequence[str] = ()) -> Picture:
    if left_out:
        caption += f" Left out, because a picture holds {MOST_MODELS} models: {', '.join(left_out)}."
    return Picture(figure_svg(drawn, f"picture-{name}"), alt, caption)


def _first(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """As many models as a picture holds, and the names of the others."""
    names = list(values)
    return {name: values[name] for name in names[:MOST_MODELS]}, names[MOST_MODELS:]


def _places(models: Sequence[Model]) -> dict[str, int]:
    """The place of each model in the report, by which it looks the same in every picture, whoever else is in it."""
    return {model.name: number for number, model in enumerate(models)}


def energy_picture(models: Sequence[Model]) -> Picture | None:
    """The GED's terms; None where no model has them all."""
    from ..visualize import energy_terms

    keys = ("cross", "diversity", "rater_diversity")
    have = {model.name: tuple(model.metrics.get(key, math.nan) for key in keys) for model in models}
    terms, left_out = _first({name: values for name, values in have.items() if np.isfinite(values).all()})
    if not terms:
        return None
    said = [
        f"{name}: 2 E d(s,y) {value_text(2 * c)} = raters {value_text(r)} + samples {value_text(s)} + GED "
        f"{value_text(2 * c - s - r)}"
        for name, (c, s, r) in terms.items()
    ]
    return _picture("energy", energy_terms(terms), "Stacked bars. " + "; ".join(said) + ".", captions.ENERGY, left_out)


def letter_value_picture(models: Sequence[Model], key: str, again: bool = False) -> Picture | None:
    """How a figure spreads over the cases; None where no model has it. ``again``: others stand above."""
    from ..visualize import letter_value_plot, letter_values

    have = {model.name: model.figures[key] for model in models if key in model.figures}
    values, left_out = _first({name: value for name, value in have.items() if np.isfinite(value).any()})
    if not values:
        return None
    said = []
    for name, value in values.items():
        letters = letter_values(value)
        middle = f"{value_text(letters.lower[0])} to {value_text(letters.upper[0])}"
        said.append(f"{name}: median {value_text(letters.median)}, middle half {middle}")
    title = figure(key).title
    caption = captions.LETTERS_AGAIN if again else captions.LETTERS + _of_runs(models)
    caption = caption.format(title=title)
    limits = (0.0, 1.0) if key.startswith("share_") else None
    picture = letter_value_plot(values, f"{figure(key).head} of a case", limits=limits, places=_places(models))
    return _picture(f"letters-{_anchor(key)}", picture, f"Boxes of {title}. {'; '.join(said)}.", caption, left_out)


def _of_runs(models: Sequence[Model]) -> str:
    """For captions of what is drawn case by case."""
    several = any(len(model.runs) > 1 for model in models)
    return " Of a model with several trainings, a case has its mean over them." if several else ""


def _curves(models: Sequence[Model], name: str) -> dict[str, list[Mapping[str, Any]]]:
    """model -> that curve of each of its runs; models of which every run has it."""
    found = {model.name: [(run.record.get("curves") or {}).get(name) for run in model.runs] for model in models}
    return {model: [curve for curve in curves if curve] for model, curves in found.items() if all(curves)}


def _binned(curves: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins of all runs taken together: counts (L,), and the means of both columns weighted by them, NaN if empty."""
    count, *columns = (np.array([curve[key] for curve in curves], dtype=float) for key in keys)  # (runs, L)
    with np.errstate(invalid="ignore"):
        means = [(np.nan_to_num(column) * count).sum(0) / count.sum(0) for column in columns]
    return count.sum(0), means[0], means[1]


def _gap(bins: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """Mean distance from the diagonal, weighted by the counts."""
    count, predicted, observed = bins
    there = count > 0
    total = count[there].sum()
    return float((np.abs(predicted - observed)[there] * count[there]).sum() / total) if total else math.nan


def reliability_pictures(models: Sequence[Model]) -> list[Picture]:
    """A reliability diagram per foreground class."""
    from ..visualize import calibration_diagram

    curves = _curves(models, "reliability")
    classes = list(dict.fromkeys(name for runs in curves.values() for name in runs[0]))
    pictures: list[Picture] = []
    for number, name in enumerate(classes):
        have = {
            model: _binned([run[name] for run in runs], ("pixels", "probability", "frequency"))
            for model, runs in curves.items()
            if all(name in run for run in runs)
        }
        bins, left_out = _first({model: value for model, value in have.items() if value[0].sum() > 0})
        if not bins:
            continue
        said = "; ".join(
            f"{model}: weighted distance from the diagonal {value_text(_gap(b))}" for model, b in bins.items()
        )
        of_class = f" of the class {name}" if len(classes) > 1 else ""
        caption = (captions.RELIABILITY_AGAIN if pictures else captions.RELIABILITY).format(of_class=of_class)
        alt = f"Reliability diagram{of_class}. {said}."
        picture = calibration_diagram(bins, places=_places(models))
        pictures.append(_picture(f"reliability-{number}", picture, alt, caption, left_out))
    return pictures


def presence_picture(models: Sequence[Model]) -> Picture | None:
    """Calibration of whether anything is drawn at all; None where no model has the curve."""
    from ..visualize import calibration_diagram

    have = {
        name: _binned(runs, ("forecasts", "samples", "raters")) for name, runs in _curves(models, "presence").items()
    }
    bins, left_out = _first({name: value for name, value in have.items() if value[0].sum() > 0})
    if not bins:
        return None
    said = "; ".join(f"{name}: weighted distance from the diagonal {value_text(_gap(b))}" for name, b in bins.items())
    picture = calibration_diagram(
        bins, "share of samples that show something", "share of raters", "forecasts", places=_places(models)
    )
    return _picture("presence", picture, f"Calibration of the presence. {said}.", captions.PRESENCE, left_out)


def area_pictures(models: Sequence[Model]) -> list[Picture]:
    """Coverage of the raters' areas by the samples' intervals, and the areas themselves."""
    from ..visualize import Areas, area_scatter, coverage_curves

    pictures = []
    have = {}
    for name, runs in _curves(models, "area_coverage").items():
        level = np.array(runs[0]["level"], dtype=float)
        if all(run["level"] == runs[0]["level"] for run in runs):
            have[name] = (level, np.array([run["coverage"] for run in runs], dtype=float).mean(0))
    curves, left_out = _first(have)
    if curves:
        said = []
        for name, (level, coverage) in curves.items():
            middle = int(np.argmin(np.abs(level - 0.8)))
            said.append(f"{name}: of the {level[middle]:.0%} interval {coverage[middle]:.0%}")
        alt = f"Share of raters inside the samples' interval of area. {'; '.join(said)}."
        picture = coverage_curves(curves, places=_places(models))
        pictures.append(_picture("coverage", picture, alt, captions.COVERAGE, left_out))
    keys = ("area_samples", "area_samples_low", "area_samples_high", "area_raters")
    areas, left_out = _first(
        {
            model.name: Areas(*(model.figures[key] for key in keys))
            for model in models
            if all(key in model.figures and np.isfinite(model.figures[key]).any() for key in keys)
        }
    )
    if areas:
        said = [
            f"{name}: samples {value_text(float(np.nanmean(one.samples)))}, raters "
            f"{value_text(float(np.nanmean(one.raters)))}"
            for name, one in areas.items()
        ]
        unit = area_unit(models[0].runs[0].record)
        count = max(len(one.raters) for one in areas.values())
        shown = " 120 cases are drawn, evenly spread from the smallest to the largest." if count > 120 else ""
        caption = captions.AREAS.format(unit=unit, shown=shown) + _of_runs(models)
        picture = area_scatter(areas, unit, places=_places(models))
        pictures.append(_picture("areas", picture, f"Mean areas. {'; '.join(said)}.", caption, left_out))
    return pictures


def selection_pictures(models: Sequence[Model]) -> list[Picture]:
    """Whether the samples' disagreement tells which cases are wrong."""
    pictures = []
    for name, x, xlabel, caption in (
        ("risk_coverage", "coverage", "share of the cases that is kept", captions.RISK_COVERAGE),
        ("second_read", "share", "share of the cases that is read again", captions.SECOND_READ),
    ):
        pictures += _selection_picture(models, name, x, xlabel, caption)
    return pictures


def _selection_picture(models: Sequence[Model], name: str, x: str, xlabel: str, caption: str) -> list[Picture]:
    from ..visualize import course_curves

    curves, left_out = _first({model: _mean_curve(runs, x) for model, runs in _curves(models, name).items()})
    if not curves:
        return []
    lines = {model: [(curve[x], curve["risk"])] for model, curve in curves.items()}
    for curve in curves.values():  # any subset of the cases has the mean risk of all, in expectation
        if name == "risk_coverage":
            curve["random"] = np.full(len(curve[x]), curve["risk"][np.argmax(curve[x])])
    references = {
        label: [(curve[x], curve[key]) for curve in curves.values()]
        for label, key in (("at random", "random"), ("oracle", "oracle"))
        if all(key in curve for curve in curves.values())
    }
    said = []
    for model, curve in curves.items():
        half = int(np.argmin(np.abs(curve[x] - 0.5)))
        whole = int(np.argmax(curve[x]) if name == "risk_coverage" else np.argmin(curve[x]))
        of_all, of_half = (value_text(float(curve["risk"][place])) for place in (whole, half))
        said.append(f"{model}: {of_all} for all, {of_half} at one half")
    picture = course_curves(
        lines, "mean risk", references=references, xlabel=xlabel, xlim=(0, 1), log=False, places=_places(models)
    )
    title = caption.partition(":")[0]
    return [_picture(_anchor(name), picture, f"{title}. Mean risk, {'; '.join(said)}.", caption, left_out)]


def _mean_curve(runs: Sequence[Mapping[str, Any]], x: str) -> dict[str, np.ndarray]:
    """The mean of the runs' curves, at the places of the first."""
    first = {key: np.array(values, dtype=float) for key, values in runs[0].items() if isinstance(values, list)}
    if len(runs) == 1:
        return first
    mean = {x: first[x]}
    for key in first:
        if key != x and all(key in run for run in runs):
            columns = [np.interp(first[x], np.array(run[x], float), np.array(run[key], float)) for run in runs]
            mean[key] = np.mean(columns, axis=0)
    return mean


def course_picture(models: Sequence[Model], table: str, column: str, ylabel: str, caption: str) -> Picture | None:
    """A column of training.csv or latents.csv over the epochs, a line per training; None where no model has it."""
    from ..visualize import course_curves

    have: dict[str, list[tuple[list[float], list[float]]]] = {}
    for model in models:
        for run in model.runs:
            rows = [row for row in getattr(run, table) or [] if column in row and "epoch" in row]
            if rows:
                have.setdefault(model.name, []).append(([r["epoch"] for r in rows], [r[column] for r in rows]))
    courses, left_out = _first(have)
    if not courses:
        return None
    said = [f"{name}: {', '.join(value_text(y[-1]) for _, y in runs)} at the end" for name, runs in courses.items()]
    if any(len(runs) > 1 for runs in courses.values()):
        caption += " A line is one training."
    picture = course_curves(courses, ylabel, places=_places(models))
    return _picture(f"{table}-{_anchor(column)}", picture, f"{ylabel} by epoch. {'; '.join(said)}.", caption, left_out)


def latent_pictures(models: Sequence[Model]) -> list[Picture]:
    """The prior of all cases, axis by axis: a picture per model that has one, of its first training.

    Standard deviations are on logarithmic axes in all of them, unless one of any model is 0.
    """
    from ..visualize import latent_boxes

    have = [(number, model, _latents(model)) for number, model in enumerate(models)]
    found = [(number, model, *latents) for number, model, latents in have if latents is not None][:MOST_MODELS]
    log = all((scales > 0).all() for *_, scales in found)
    pictures = []
    for number, model, mean, scales in found:
        several = f" Of its {len(model.runs)} trainings this is the first." if len(model.runs) > 1 else ""
        caption = captions.LATENT.format(model=model.name, cases=f"{len(mean):,}", runs=several)
        widths = ", ".join(value_text(float(width)) for width in np.median(scales, axis=0))
        alt = f"Boxes of the prior of {model.name}. Median standard deviations: {widths}."
        picture = latent_boxes(mean, scales, log=log, place=number)
        pictures.append(_picture(f"latent-{number}", picture, alt, caption))
    return pictures


_AXES = 32  # more boxes than this say nothing at the width of a page


def _latents(model: Model) -> tuple[np.ndarray, np.ndarray] | None:
    path = model.runs[0].npz
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as arrays:
        if "latent_mean" not in arrays or "latent_scales" not in arrays:
            return None
        mean, scales = arrays["latent_mean"], arrays["latent_scales"]
    if mean.ndim != 2 or mean.shape != scales.shape or not mean.size or mean.shape[1] > _AXES:
        return None
    finite = np.isfinite(mean).all(1) & np.isfinite(scales).all(1)
    return (mean[finite], scales[finite]) if finite.any() else None


def _anchor(key: str) -> str:
    return key.replace("_", "-")
