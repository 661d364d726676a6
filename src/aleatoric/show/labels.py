"""What the raters drew, counted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..data import PreparedDataset

__all__ = ["LabelFigures", "label_figures"]

_BLOCK = 1 << 24  # labels that are in memory at a time


class LabelFigures(NamedTuple):
    """What the raters drew in some patches. A mask is one rater's map of one patch; missing raters have none."""

    slots: int  # patches times rater slots
    missing: int  # slots whose rater is missing
    empty: int  # masks without foreground
    drew: np.ndarray  # (R + 1,) patches in which 0, 1, ... R raters drew something
    pixels: np.ndarray  # (K,) share of the masks' pixels that each class has, background first
    occurs: np.ndarray  # (K,) share of the masks in which each class occurs
    distinct: float  # mean 1 - IoU over pairs of different raters; NaN without such a pair
    distinct_patches: int  # patches with two raters or more, which that mean is of
    with_self: float  # the same with every rater paired with himself too (V-statistic); NaN without a rater
    with_self_patches: int  # patches with a rater, which that mean is of


def label_figures(dataset: PreparedDataset, positions: np.ndarray) -> LabelFigures:
    """Count what the raters drew, block by block: memory does not grow with the data set.

    Both means of 1 - IoU give every patch the same weight. Two empty masks have distance 0; of class maps it is the
    mean over the foreground classes that occur in the patch. They are the terms of the generalized energy distance that
    an evaluation reports as ``rater_diversity_unbiased``, where a patch with one rater does not count, and
    ``rater_diversity``.

    Args:
        dataset: the data set.
        positions: (n,) the patches that count.
    """
    raters, classes = dataset.labels.shape[1], len(dataset.info["classes"])
    per_mask = int(np.prod(dataset.labels.shape[2:]))
    drew, pixels, occurs = (np.zeros(length, np.int64) for length in (raters + 1, classes, classes))
    missing = empty = 0
    sums, counts = np.zeros(2), np.zeros(2, np.int64)  # distinct pairs, with self-pairs
    step = max(1, _BLOCK // (raters * per_mask))
    for start in range(0, len(positions), step):
        chosen = positions[start : start + step]
        labels, valid = np.asarray(dataset.labels[chosen]), dataset.rater_valid[chosen]
        masks = labels[valid].reshape(-1, per_mask)  # (M, pixels)
        sizes = np.zeros((len(masks), classes), np.int64)
        for value in range(1, int(masks.max(initial=0)) + 1):
            sizes[:, value] = np.count_nonzero(masks == value, axis=1)
        sizes[:, 0] = per_mask - sizes.sum(1)
        drawn = np.zeros(valid.shape, bool)
        drawn[valid] = sizes[:, 0] < per_mask
        drew += np.bincount(drawn.sum(1), minlength=raters + 1)
        missing += int((~valid).sum())
        empty += int((valid & ~drawn).sum())
        pixels += sizes.sum(0)
        occurs += (sizes > 0).sum(0)

        there = valid.sum(1)
        biased = _disagreement(labels, valid)
        pairs = there > 1
        sums += (biased[pairs] * there[pairs] / (there[pairs] - 1)).sum(), biased[there > 0].sum()
        counts += pairs.sum(), (there > 0).sum()
    slots = len(positions) * raters
    present = max(slots - missing, 1)
    means = np.divide(sums, counts, out=np.full(2, np.nan), where=counts > 0)
    return LabelFigures(
        slots,
        missing,
        empty,
        drew,
        pixels / (present * per_mask),
        occurs / present,
        float(means[0]),
        int(counts[0]),
        float(means[1]),
        int(counts[1]),
    )


def _disagreement(labels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(m,) mean 1 - IoU of all pairs of raters, self-pairs included; NaN where there is no rater."""
    if labels.shape[1] == 1:
        return np.where(valid[:, 0], 0.0, np.nan)
    import torch

    from ..metrics.functional import generalized_energy_terms

    masks = torch.from_numpy(labels)
    nothing = torch.zeros_like(masks[:, :1])  # the terms want a sample too; an empty one has no say in the raters' term
    terms = generalized_energy_terms(nothing, masks, torch.from_numpy(valid))
    return terms.labels.double().numpy()
