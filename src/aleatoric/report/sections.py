"""A report's parts, in the order that a reader asks: what came out, is it sure, what does it look like, where from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import captions
from .cautions import cautions
from .collect import Evaluation
from .content import Picture, Section
from .drawings import (
    area_pictures,
    course_picture,
    energy_picture,
    latent_pictures,
    letter_value_picture,
    presence_picture,
    reliability_pictures,
    selection_pictures,
)
from .figures import figure, value_text
from .models import Compared, Model, compare, pool
from .provenance import provenance_tables
from .tables import family_tables, matrix_table, run_table, spread_table, summary_table

__all__ = ["report_sections"]

#: That have a matrix of their own; the others are marked in the tables.
_MATRICES = ("ged", "ewd", "dice_matched", "dice_nonempty_mean_prediction", "brier", "area_crps")


def report_sections(evaluations: Sequence[Evaluation]) -> list[Section]:
    """The parts of a report on some evaluations; what none of them has is left out."""
    models = pool(evaluations)
    compared = compare(models, list(dict.fromkeys(name for model in models for name in model.figures)))
    sections = [
        Section("summary", "Summary", _summary_words(models, compared), [summary_table(models, compared)], []),
        _tests(models, compared),
        _runs(models),
        _energy(models),
        Section(
            "calibration",
            "Calibration",
            [],
            [],
            [*reliability_pictures(models), *area_pictures(models), *_there(presence_picture(models))],
        ),
        Section("selection", "Does the model know where it is wrong", [], [], selection_pictures(models)),
        _latent(models),
        _training(models),
        Section("figures", "All figures", ["To be read as the summary's table."], family_tables(models, compared), []),
        Section("provenance", "Where the numbers come from", [], provenance_tables(evaluations), []),
    ]
    return [section for section in sections if section.words or section.tables or section.pictures]


def _there(picture: Picture | None) -> list[Picture]:
    return [] if picture is None else [picture]


def _summary_words(models: Sequence[Model], compared: Compared) -> list[str]:
    groups: dict[str, list[Model]] = {}
    for model in models:
        groups.setdefault(_asked(model), []).append(model)
    words = []
    for asked, group in groups.items():
        what = f"{len(group)} models" if len(group) > 1 else group[0].name
        if 1 < len(group) < len(models):
            what = ", ".join(model.name for model in group)
        runs = sum(len(model.runs) for model in group)
        trained = f", {runs} trainings together" if runs > len(group) else ""
        words.append(f"{what}{trained} on {asked}.")
    if any(len(model.runs) > 1 for model in models):
        words.append(
            "Of a model with several trainings, each case counts with its mean over those that were scored on it."
        )
    known = {warning for model in models for run in model.runs for warning in run.record.get("warnings") or ()}
    known |= set(cautions(models))
    heads = tuple(text.partition(";")[0].rstrip(".") for text in known)  # which head the page
    for text in compared.warnings:
        if text in known:
            continue
        if heads and text.startswith(heads):  # of the tests' own only what is not said there
            text = text.partition("; ")[2]
        words += [_capitalised(text)] if text else []
    for name in ("ged", "ewd"):
        words += _ranking(compared, name)
    return words


def _asked(model: Model) -> str:
    """Data, cases and samples, in words."""
    record = model.runs[0].record
    data = record["dataset"]
    return (
        f"{data.get('name')} ({data.get('source')}): {len(model.keys):,} cases of {len(set(model.patients)):,} "
        f"patients, section {record['section']}, {record['num_samples']} samples each"
    )


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _ranking(compared: Compared, name: str) -> list[str]:
    """Who is best by a figure, and who cannot be told from the best."""
    comparison = compared.comparison
    if comparison is None or name not in compared.figures:
        return []
    place, row = compared.figures.index(name), compared.best(name)
    if row is None:
        return []
    best, others = comparison.models[row], [i for i in range(len(comparison.models)) if i != row]
    near = [comparison.models[i] for i in others if comparison.inside[row, i, place]]
    sentence = f"By {figure(name).title}, {best} has the best mean, {value_text(compared.means(name)[best])}"
    if near:
        return [f"{sentence}; its difference to {', '.join(near)} is inside the noise."]
    unknown = np.isnan(comparison.trainings[row, others, place]).any()
    whom = " and ".join(comparison.models[i] for i in others) if len(others) < 3 else "every other that is compared"
    more = " of other patients; what other trainings would change is not known" if unknown else ""
    return [f"{sentence}; its difference to {whom} is outside the noise{more}."]


def _tests(models: Sequence[Model], compared: Compared) -> Section:
    comparison = compared.comparison
    figures = [name for name in _MATRICES if name in compared.figures]
    words = []
    if comparison is not None:
        for name in figures[:1]:
            place = compared.figures.index(name)
            for i, first in enumerate(comparison.models):
                for second in comparison.models[i + 1 :]:
                    sentence = comparison.verdict(first, second, place).sentence
                    words.append(f"{figure(name).title} of {first} minus {second}: {sentence}")
    elif len(models) > 1:
        words = ["No test is made: see the summary for why."]
    return Section(
        "tests", "Tests", words, [matrix_table(compared, name, again=i > 0) for i, name in enumerate(figures)], []
    )


def _runs(models: Sequence[Model]) -> Section:
    tables = [table for table in (spread_table(models), run_table(models)) if table is not None]
    return Section("runs", "Folds and seeds", [], tables, [])


def _energy(models: Sequence[Model]) -> Section:
    cases = letter_value_picture(models, "ged")
    better = letter_value_picture(models, "share_better_than_mean", again=cases is not None)
    pictures = [picture for picture in (energy_picture(models), cases, better) if picture is not None]
    return Section("energy", "Overlap and diversity", [], [], pictures)


def _latent(models: Sequence[Model]) -> Section:
    courses = [
        course_picture(models, "latents", "effective_rank", "effective rank", captions.RANK),
        course_picture(models, "latents", "gini_index", "Gini index", captions.GINI),
    ]
    pictures = [picture for picture in courses if picture is not None]
    return Section("latent", "Latent space", [], [], [*pictures, *latent_pictures(models)])


def _training(models: Sequence[Model]) -> Section:
    courses = [
        course_picture(
            models, "training", "train_loss", "loss, training", captions.LOSS.format(part="training images")
        ),
        course_picture(
            models, "training", "val_loss", "loss, validation", captions.LOSS.format(part="validation images")
        ),
        course_picture(models, "training", "val_ged", "GED, validation", captions.VALIDATION_GED),
    ]
    return Section("training", "Training", [], [], [picture for picture in courses if picture is not None])
