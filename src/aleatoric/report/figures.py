"""How a reader is told of a figure: its name, which direction is better, its place among the others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["FAMILIES", "HEADLINES", "Figure", "figure", "in_order", "interval_text", "value_text", "with_interval"]

LOWER, HIGHER, NEITHER = "lower", "higher", ""
_ARROWS = {LOWER: " ↓", HIGHER: " ↑", NEITHER: ""}


class Figure(NamedTuple):
    """A figure of metrics.json."""

    key: str
    title: str
    better: str  # "lower", "higher", or "" where neither is better in itself
    family: str

    @property
    def head(self) -> str:
        """The title, with an arrow in the better direction."""
        return self.title + _ARROWS[self.better]


_SAMPLES, _OVERLAP, _DOUBT = "Samples against raters", "Overlap", "Calibration and doubt"
_AREA, _SELECTION, _LATENT, _OTHER = "Area and presence", "Selection", "Latent space", "Other figures"
#: In the order of the report.
FAMILIES = (_SAMPLES, _OVERLAP, _DOUBT, _AREA, _SELECTION, _LATENT, _OTHER)
_FIGURES = {
    key: Figure(key, title, better, family)
    for family, key, title, better in (
        (_SAMPLES, "ged", "GED", LOWER),
        (_SAMPLES, "ged_unbiased", "GED, unbiased", LOWER),
        (_SAMPLES, "cross", "Distance of samples and raters, E d(s,y)", LOWER),
        (_SAMPLES, "diversity", "Diversity of the samples, E d(s,s')", NEITHER),
        (_SAMPLES, "diversity_unbiased", "Diversity of the samples, unbiased", NEITHER),
        (_SAMPLES, "rater_diversity", "Diversity of the raters, E d(y,y')", NEITHER),
        (_SAMPLES, "rater_diversity_unbiased", "Diversity of the raters, unbiased", NEITHER),
        (_SAMPLES, "ewd", "EWD (1 - IoU)", LOWER),
        (_SAMPLES, "ewd_dice", "EWD (1 - Dice)", LOWER),
        (_SAMPLES, "ewd_hausdorff", "EWD (Hausdorff)", LOWER),
        (_SAMPLES, "ewd_cross_entropy", "EWD (cross-entropy)", LOWER),
        (_SAMPLES, "hm_iou", "HM-IoU", HIGHER),
        (_OVERLAP, "dice", "Dice, all pairs", HIGHER),
        (_OVERLAP, "dice_nonempty", "Dice, raters who drew", HIGHER),
        (_OVERLAP, "dice_matched", "Dice, matched", HIGHER),
        (_OVERLAP, "dice_max", "Dice, best sample per rater", HIGHER),
        (_OVERLAP, "dice_quantile_95", "Dice, 95 % quantile of the samples", HIGHER),
        (_OVERLAP, "dice_mean_prediction", "Dice of the mean prediction", HIGHER),
        (_OVERLAP, "dice_nonempty_mean_prediction", "Dice of the mean prediction, raters who drew", HIGHER),
        (_OVERLAP, "dice_between_raters", "Dice between raters", NEITHER),
        (_OVERLAP, "share_better_than_mean", "Share of samples better than the mean", NEITHER),
        (_DOUBT, "ece", "Expected calibration error", LOWER),
        (_DOUBT, "ece_pooled", "Expected calibration error, pooled", LOWER),
        (_DOUBT, "ace", "Average calibration error", LOWER),
        (_DOUBT, "ace_pooled", "Average calibration error, pooled", LOWER),
        (_DOUBT, "brier", "Brier score", LOWER),
        (_DOUBT, "qubiq_score", "QUBIQ score", HIGHER),
        (_DOUBT, "variance_ncc", "NCC of variance maps", HIGHER),
        (_DOUBT, "cross_entropy_ncc", "NCC of cross-entropy maps", HIGHER),
        (_DOUBT, "entropy", "Predictive entropy", NEITHER),
        (_AREA, "area_crps", "CRPS of the area", LOWER),
        (_AREA, "area_calibration_error", "Calibration error of the area", LOWER),
        (_AREA, "area_samples", "Area of the samples", NEITHER),
        (_AREA, "area_samples_low", "Area of the samples, 5 % quantile", NEITHER),
        (_AREA, "area_samples_high", "Area of the samples, 95 % quantile", NEITHER),
        (_AREA, "area_raters", "Area of the raters' masks", NEITHER),
        (_AREA, "presence_brier", "Brier score of the presence", LOWER),
        (_AREA, "presence_ece", "Calibration error of the presence", LOWER),
        (_AREA, "presence_samples", "Share of samples that show something", NEITHER),
        (_AREA, "presence_raters", "Share of raters who drew something", NEITHER),
        (_SELECTION, "aurc", "AURC", LOWER),
        (_SELECTION, "aurc_excess", "E-AURC", LOWER),
        (_LATENT, "effective_rank", "Effective rank", NEITHER),
        (_LATENT, "gini_index", "Gini index", NEITHER),
    )
}
#: What the summary shows of what there is, in this order.
HEADLINES = (
    *("ged", "ewd", "dice_matched", "dice_max", "dice_nonempty_mean_prediction", "diversity", "rater_diversity"),
    *("ece", "brier", "qubiq_score", "area_crps", "presence_brier", "aurc", "effective_rank", "gini_index"),
)


def figure(key: str) -> Figure:
    """What is said of a figure; of one that is not known its own name, and no direction."""
    if key in _FIGURES:
        return _FIGURES[key]
    for start, pairs in (("dice_class_", "all pairs"), ("dice_shown_", "where shown"), ("dice_whole", "all pairs")):
        if key.startswith(start):
            name = key.removeprefix("dice_class_").removeprefix("dice_shown_").removeprefix("dice_")
            of_mean = name.endswith("_mean_prediction")
            name = name.removesuffix("_mean_prediction").replace("_", " ")
            return Figure(key, f"Dice of {name}, {'mean prediction, ' * of_mean}{pairs}", HIGHER, _OVERLAP)
    if key.startswith("area_coverage"):
        level = key.removeprefix("area_coverage").removeprefix("_")
        return Figure(key, f"Raters' areas in the samples' {level} % interval".replace("  %", ""), NEITHER, _AREA)
    for start in ("ewd_", "ece_", "ace_", "brier_", "area_crps_"):
        if key.startswith(start):
            known = _FIGURES.get(start[:-1], _FIGURES["ewd"])
            return Figure(key, key.replace("_", " "), LOWER, known.family)
    family = next((known.family for name, known in _FIGURES.items() if key.startswith(f"{name}_")), _OTHER)
    return Figure(key, key.replace("_", " "), NEITHER, family)


def in_order(keys: Iterable[str]) -> list[Figure]:
    """Family by family, in each as listed here; those that are not known after them, by name."""
    places = {key: number for number, key in enumerate(_FIGURES)}
    figures = [figure(key) for key in dict.fromkeys(keys)]
    return sorted(figures, key=lambda one: (FAMILIES.index(one.family), places.get(one.key, len(places)), one.key))


def value_text(value: float, beside: Iterable[float] = ()) -> str:
    """Three decimals, fewer of what is large; a dash where it is undefined.

    Args:
        value: a figure.
        beside: numbers that stand in the same cell, and have as many decimals.
    """
    if not math.isfinite(value):
        return "–"  # an en dash, which no number begins with
    size = max(abs(number) for number in (value, *beside) if math.isfinite(number))
    if 0 < size < 0.0001:
        return f"{value:.1g}"
    decimals = 4 if 0 < size < 0.01 else 3 if size < 10 else 1 if size < 1000 else 0
    return f"{value:,.{decimals}f}"


def interval_text(low: float, high: float) -> str:
    """``[low, high]``; nothing where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{value_text(low, (high,))}, {value_text(high, (low,))}]"


def with_interval(value: float, low: float, high: float) -> str:
    """``value [low, high]``; the value alone where there is no interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return value_text(value)
    every = (value, low, high)
    first, *ends = (value_text(number, every) for number in every)
    return f"{first} [{', '.join(ends)}]"
