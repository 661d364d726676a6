"""What each figure is, in a sentence that stands beside its number: formula and conventions."""

from __future__ import annotations

__all__ = ["DEFINITIONS", "definition"]

DEFINITIONS = {
    "ged": "generalized energy distance, 2 E d(s,y) - E d(s,s') - E d(y,y'), d = 1 - IoU, V-statistic "
    "(self-pairs counted)",
    "ged_unbiased": "generalized energy distance over distinct pairs (U-statistic)",
    "ewd": "empirical Wasserstein distance: optimal assignment of samples to raters, both repeated to their least "
    "common multiple, mean cost 1 - IoU",
    "ewd_dice": "as ewd, with the cost 1 - Dice",
    "cross": "E d(s,y) between samples and raters",
    "diversity": "E d(s,s') among the samples, self-pairs counted",
    "diversity_unbiased": "E d(s,s') among distinct samples",
    "rater_diversity": "E d(y,y') among the raters, self-pairs counted",
    "rater_diversity_unbiased": "E d(y,y') among distinct raters",
    "dice": "mean Dice over all pairs of a sample and a rater; both empty counts 1",
    "dice_nonempty": "mean Dice over pairs with a rater who drew something (DSC_nod)",
    "dice_class": "mean Dice of this class alone over all pairs of a sample and a rater; both empty counts 1",
    "dice_whole": "mean Dice of all foreground classes united over all pairs of a sample and a rater; both empty "
    "counts 1",
    "dice_shown": "mean Dice of this class alone (whole: of all foreground classes united) over the pairs of a sample "
    "and a rater of whom at least one shows it, as in the SSN paper's evaluation",
    "dice_quantile_95": "95% quantile over a case's samples of their Dice, mean over classes and raters, interpolated "
    "linearly",
    "dice_mean_prediction": "mean Dice over raters of the mean prediction (of the network's own mean where it has one, "
    "otherwise of the samples' mean probabilities); both empty counts 1",
    "dice_nonempty_mean_prediction": "mean Dice of the mean prediction over raters who drew something (DSC_nod)",
    "dice_class_mean_prediction": "mean Dice over raters of the mean prediction, this class alone; both empty counts 1",
    "dice_whole_mean_prediction": "mean Dice over raters of the mean prediction, all foreground classes united; both "
    "empty counts 1",
    "dice_shown_mean_prediction": "mean Dice of the mean prediction, this class alone (whole: all united), over the "
    "raters where one of the two shows it, as in the SSN paper's evaluation",
    "share_better_than_mean": "share of a case's samples whose Dice, mean over classes and raters, is higher than the "
    "mean prediction's",
    "effective_rank": "exp of the entropy of the prior's standard deviations, along its principal axes, divided by "
    "their sum, 1 to d",
    "gini_index": "Gini index of the prior's standard deviations along its principal axes, 0 (all alike) to 1",
}


def definition(name: str) -> str:
    """What a figure of metrics.json is; empty for one that is not ours."""
    for start in ("dice_class", "dice_shown"):
        if name.startswith(f"{start}_"):  # a class's name stands in the middle
            name = f"{start}_mean_prediction" if name.endswith("_mean_prediction") else start
    return DEFINITIONS.get(name, "")
