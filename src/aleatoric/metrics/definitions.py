"""What each figure is, in a sentence that stands beside its number: formula and conventions."""

from __future__ import annotations

__all__ = ["DEFINITIONS", "definition"]

DEFINITIONS = {
    "ged": "generalized energy distance, 2 E d(s,y) - E d(s,s') - E d(y,y'), d = 1 - IoU, V-statistic "
    "(self-pairs counted)",
    "ged_unbiased": "generalized energy distance over distinct pairs (U-statistic); undefined for one sample; of one "
    "rater, who stands for all, E d(y,y') is 0",
    "ewd": "empirical Wasserstein distance: optimal assignment of samples to raters, both repeated to their least "
    "common multiple, mean cost 1 - IoU",
    "ewd_dice": "as ewd, with the cost 1 - Dice",
    "ewd_hausdorff": "as ewd, with the Hausdorff distance as cost, in pixels, or mm where the spacing is given; one "
    "mask empty counts the image's diagonal",
    "hm_iou": "Hungarian-matched IoU, 1 - ewd",
    "dice_matched": "D_match: mean Dice of the optimal assignment of samples to raters, both repeated to their least "
    "common multiple; 1 - ewd_dice",
    "dice_max": "D_max: Dice of the sample that comes closest to a rater, mean over raters; rises with the number of "
    "samples",
    "area_crps": "continuous ranked probability score of the area (3D: volume) under the samples, E|a_s - a_y| - "
    "E|a_s - a_s'| / 2, mean over raters and classes, in pixels, or mm^2 (mm^3) where the spacing is given",
    "area_samples": "mean area (3D: volume) of the samples' masks, mean over classes, unit as area_crps",
    "area_samples_low": "5% quantile over a case's samples of their area, interpolated linearly, unit as area_crps",
    "area_samples_high": "95% quantile over a case's samples of their area, interpolated linearly, unit as area_crps",
    "area_raters": "mean area (3D: volume) of the raters' masks, mean over classes, unit as area_crps",
    "area_coverage": "share of the raters whose area lies in the samples' central interval of this level (percent), "
    "classes that a mask of the case shows; by places among N + 1, so that one law for both gives the level, whatever "
    "N is",
    "presence_samples": "share of the samples that show the class at all, mean over classes",
    "presence_raters": "share of the raters who show the class at all, mean over classes",
    "presence_brier": "Brier score of the class being there, (share of samples - 1 or 0)^2, mean over raters and "
    "classes",
    "cross": "E d(s,y) between samples and raters",
    "diversity": "E d(s,s') among the samples, self-pairs counted",
    "diversity_unbiased": "E d(s,s') among distinct samples; undefined for one sample",
    "rater_diversity": "E d(y,y') among the raters, self-pairs counted; 0 for one rater",
    "rater_diversity_unbiased": "E d(y,y') among distinct raters; undefined for one rater",
    "dice": "mean Dice over all pairs of a sample and a rater; both empty counts 1",
    "dice_nonempty": "mean Dice over pairs with a rater who drew something (DSC_nod); of class maps, for each rater "
    "the mean over the classes that this rater drew",
    "dice_class": "mean Dice of this class alone over all pairs of a sample and a rater; both empty counts 1",
    "dice_whole": "mean Dice of all foreground classes united over all pairs of a sample and a rater; both empty "
    "counts 1",
    "dice_shown": "mean Dice of this class alone (whole: of all foreground classes united) over the pairs of a sample "
    "and a rater of whom at least one shows it, as in the SSN paper's evaluation",
    "dice_quantile_95": "95% quantile over a case's samples of their Dice, mean over classes and raters, interpolated "
    "linearly",
    "dice_mean_prediction": "mean Dice over raters of the mean prediction (of the network's own mean where it has one, "
    "otherwise of the samples' mean probabilities); both empty counts 1",
    "dice_nonempty_mean_prediction": "mean Dice of the mean prediction over raters who drew something (DSC_nod); of "
    "class maps, for each rater the mean over the classes that this rater drew",
    "dice_class_mean_prediction": "mean Dice over raters of the mean prediction, this class alone; both empty counts 1",
    "dice_whole_mean_prediction": "mean Dice over raters of the mean prediction, all foreground classes united; both "
    "empty counts 1",
    "dice_shown_mean_prediction": "mean Dice of the mean prediction, this class alone (whole: all united), over the "
    "raters where one of the two shows it, as in the SSN paper's evaluation",
    "share_better_than_mean": "share of a case's samples whose Dice, mean over classes and raters, is higher than the "
    "mean prediction's",
    "ewd_cross_entropy": "as ewd, with the cost of the cross-entropy of a rater's labels under a sample's "
    "probabilities, nats, mean over pixels, of all classes, background included, computed from the logits, logarithms "
    "cut off at -100",
    "ece": "expected calibration error of the samples' mean probability against the share of raters: 15 bins of one "
    "width, weighted by their pixels, background pixels included; mean over foreground classes",
    "ace": "average calibration error: as ece, but the unweighted mean over the bins that hold a pixel (not the "
    "adaptive one)",
    "brier": "mean over pixels and foreground classes of (p - f)^2, p the samples' mean probability and f the share of "
    "raters; per rater it would be this plus f (1 - f)",
    "qubiq_score": "score of the QUBIQ challenge: Dice of the pixels where p and those where f is greater than a "
    "threshold (by more than 1e-6), mean over the thresholds .1 to .9 and foreground classes; both empty counts 1",
    "variance_ncc": "correlation over pixels of the samples' and the raters' variance maps, q (1 - q) of the share q "
    "that marks a pixel, summed over foreground classes; 0 where only the samples agree everywhere, left out where the "
    "raters do",
    "cross_entropy_ncc": "PHiSeg's S_NCC: correlation over pixels of E_s CE(mean, s) with E_s CE(y,s), mean over "
    "raters, of all classes, background included; logarithms cut off at -100; 0 where only the former is constant, "
    "left out where the latter is",
    "entropy": "entropy of a pixel's mean probabilities of all classes, background included, nats, mean over pixels",
    "effective_rank": "exp of the entropy of the prior's standard deviations, along its principal axes, divided by "
    "their sum, 1 to d",
    "gini_index": "Gini index of the prior's standard deviations along its principal axes, 0 (all alike) to 1",
    "ece_pooled": "expected calibration error of all pixels of the data set, one diagram per foreground class, then "
    "the mean over classes (ece: mean over cases)",
    "ace_pooled": "average calibration error of all pixels of the data set, one diagram per foreground class, then the "
    "mean over classes (ace: mean over cases)",
    "presence_ece": "expected calibration error of the share of samples that show a class at all, against the share of "
    "raters who do; every case and foreground class is one forecast, all in one diagram of 10 bins (number of classes "
    "not given: any class, one forecast per case)",
    "area_calibration_error": "mean over the levels 10 % to 90 % of |share of raters whose area lies in the samples' "
    "central interval - level|, shares as means over the cases that show anything (area_coverage)",
    "aurc": "area under the risk-coverage curve, risk 1 - dice_mean_prediction, uncertainty diversity (Geifman and "
    "El-Yaniv 2017)",
    "aurc_excess": "aurc less that of the best order of the same risks (E-AURC)",
    "dice_between_raters": "mean Dice over pairs of distinct raters; both empty counts 1; undefined for one rater",
}


def definition(name: str) -> str:
    """What a figure of metrics.json is; empty for one that is not ours."""
    if name.startswith("area_coverage_"):  # the level stands behind it
        name = "area_coverage"
    for start in ("dice_class", "dice_shown"):
        if name.startswith(f"{start}_"):  # a class's name stands in the middle
            name = f"{start}_mean_prediction" if name.endswith("_mean_prediction") else start
    return DEFINITIONS.get(name, "")
