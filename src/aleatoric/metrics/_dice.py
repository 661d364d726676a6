"""Dice scores: of samples and of the one answer that stands for them, by class, and how the samples' scores spread."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import InputError
from ._overlap import Overlap, dice_scores, measure_overlap, plain

__all__ = [
    "class_dice",
    "dice",
    "dice_between_raters",
    "dice_figures",
    "dice_max",
    "dice_quantile",
    "share_better_than_mean",
]

_QUANTILE = 0.95  # SSN section 5.3
# Two masks of the same score may differ in the last bit, since sums are rounded; of 17 million pixels one changes 3e-8.
_TIE = 1e-12


def dice(
    samples: torch.Tensor,
    labels: torch.Tensor,
    skip_empty: bool = False,
    *,
    rater_valid: torch.Tensor | None = None,
    num_classes: int | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Dice score 2 |s & y| / (|s| + |y|) of the samples under each rater; 1 where both are empty.

    Args:
        samples: (B, N, *S); N = 1 for the one answer of a deterministic network, or for a mean prediction.
        labels: (B, R, *S).
        skip_empty: leave out raters (of class maps: classes of a rater) whose mask is empty: DSC_nod (SSN section 5.2).
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: classes with the background, for class maps, whose classes' scores are averaged. For each class
            alone: :func:`class_dice`.
        reduction: ``mean``: (B,), the mean over samples and raters. ``raters``: (B, N), the mean over raters.
            ``none``: (B, N, R), NaN for raters left out.

    Returns:
        (B,), (B, N) or (B, N, R) float32; NaN where no rater is left.

    Example:
        >>> rater, empty = torch.tensor([[1, 1]]), torch.tensor([[0, 0]])
        >>> sample, raters = torch.tensor([[[[1, 0]]]]), torch.stack([rater, empty])[None]
        >>> dice(sample, raters), dice(sample, raters, skip_empty=True)
        (tensor([0.3333]), tensor([0.6667]))
    """
    if reduction not in ("mean", "raters", "none"):
        raise InputError(f"reduction is {reduction!r}; pass 'mean', 'raters' or 'none'.")
    pairs = _pairwise_dice(measure_overlap(samples, labels, rater_valid, num_classes), skip_empty)
    if reduction == "none":
        return pairs.float()
    return (pairs.flatten(1).nanmean(1) if reduction == "mean" else pairs.nanmean(2)).float()


def class_dice(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    *,
    num_classes: int,
    both_empty: float = 1.0,
) -> torch.Tensor:
    """Dice score of every foreground class, and of all of them united: SSN Table 2, where they make the whole tumour.

    Args:
        samples: (B, N, *S) class maps; N = 1 for a mean prediction.
        labels: (B, R, *S) class maps.
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: K, with the background.
        both_empty: the score of a class that neither sample nor rater shows. NaN leaves such pairs out of means, which
            is what SSN's published evaluation does.

    Returns:
        (B, N, R, K) float32: classes 1 to K - 1, and the whole foreground last. NaN for missing raters.

    Example:
        >>> sample, rater = torch.tensor([[[[1, 2, 0]]]]), torch.tensor([[[[1, 1, 0]]]])
        >>> class_dice(sample, rater, num_classes=3)
        tensor([[[[0.6667, 0.0000, 1.0000]]]])
    """
    if num_classes < 2:
        raise InputError(f"num_classes is {num_classes}; give the number of classes with the background, at least 2.")
    overlap = measure_overlap(samples, labels, rater_valid, num_classes, united=True)
    return _class_dice(overlap, both_empty).movedim(1, -1).float()


def dice_max(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    *,
    num_classes: int | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """D_max: Dice of the sample that comes closest to a rater, for every rater (Wu et al., D-Persona, CVPR 2024).

    It says whether each reading is among the samples at all, not how often, and rises with their number: compare models
    at one N. D-Persona's released code has both directions, and the one that it calls ``Dice_max`` is the other: the
    best rater of every sample, mean over samples; this is its ``Dice_max_reverse``.

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: classes with the background, for class maps: the best is the sample whose mean over classes is.
        reduction: ``mean``: (B,), the mean over raters. ``raters``: (B, R), NaN for missing raters.

    Returns:
        (B,) or (B, R) float32; NaN where no rater is left.

    Example:
        >>> samples, labels = torch.tensor([[[[1, 0]], [[1, 1]]]]), torch.tensor([[[[1, 1]], [[0, 1]]]])
        >>> dice_max(samples, labels, reduction="raters")
        tensor([[1.0000, 0.6667]])
    """
    if reduction not in ("mean", "raters"):
        raise InputError(f"reduction is {reduction!r}; pass 'mean' or 'raters'.")
    best = _pairwise_dice(measure_overlap(samples, labels, rater_valid, num_classes), False).amax(1)
    return (best.nanmean(1) if reduction == "mean" else best).float()


def dice_between_raters(
    labels: torch.Tensor, rater_valid: torch.Tensor | None = None, *, num_classes: int | None = None
) -> torch.Tensor:
    """Mean Dice over the pairs of distinct raters: what one expert's reading scores under another's.

    Args:
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: classes with the background, for class maps. In ``multi_rater_figures`` without it the mean also
            runs over classes that only samples show.

    Returns:
        (B,) float32; NaN where fewer than two raters are valid.

    Example:
        >>> dice_between_raters(torch.tensor([[[[1, 1]], [[1, 0]], [[0, 0]]]]))
        tensor([0.2222])
    """
    nothing = torch.zeros_like(plain(labels, "labels")[:, :1])
    return _between_raters(measure_overlap(nothing, labels, rater_valid, num_classes)).float()


def dice_quantile(
    samples: torch.Tensor,
    labels: torch.Tensor,
    quantile: float = _QUANTILE,
    *,
    rater_valid: torch.Tensor | None = None,
    num_classes: int | None = None,
) -> torch.Tensor:
    """Quantile, over an image's samples, of their Dice scores: how good the better samples are (SSN section 5.3).

    A sample's score is ``dice(..., reduction="raters")``: the mean over classes and raters. Between two samples it is
    interpolated linearly.

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        quantile: from 0, the worst sample, to 1, the best.
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: classes with the background, for class maps.

    Returns:
        (B,) float32; NaN without a valid rater.

    Example:
        >>> samples, rater = torch.tensor([[[[1, 1]], [[0, 0]]]]), torch.tensor([[[[1, 1]]]])
        >>> dice_quantile(samples, rater, 0.5)  # half way between 0 and 1
        tensor([0.5000])
    """
    if not 0 <= quantile <= 1:
        raise InputError(f"quantile is {quantile}; pass a number from 0 to 1.")
    scores = _pairwise_dice(measure_overlap(samples, labels, rater_valid, num_classes), False).nanmean(2)
    return _quantile(scores, quantile).float()


def share_better_than_mean(
    samples: torch.Tensor,
    labels: torch.Tensor,
    mean_prediction: torch.Tensor,
    *,
    rater_valid: torch.Tensor | None = None,
    num_classes: int | None = None,
) -> torch.Tensor:
    """Share of an image's samples whose Dice score is higher than that of the mean prediction (SSN Fig. 5).

    Scores are means over classes and raters. A sample that is as good as the mean prediction is not better.

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        mean_prediction: (B, *S), see :class:`aleatoric.transforms.MeanPredictiond`.
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: classes with the background, for class maps. None: the means run over the classes that occur in any
            sample, valid rater or the mean prediction of this image.

    Returns:
        (B,) float32; NaN without a valid rater.

    Example:
        >>> samples, rater = torch.tensor([[[[1, 1]], [[0, 0]]]]), torch.tensor([[[[1, 1]]]])
        >>> share_better_than_mean(samples, rater, torch.tensor([[[1, 0]]]))
        tensor([0.5000])
    """
    overlap = measure_overlap(samples, labels, rater_valid, num_classes, mean_prediction=mean_prediction)
    return _share_better(_pairwise_dice(overlap, False)).float()


def dice_figures(
    overlap: Overlap, with_mean: Overlap | None, class_names: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Each (B,) float32; those of the mean prediction only where there is one.

    Args:
        overlap: of samples and raters; with the united foreground where there are ``class_names``.
        with_mean: the same count with the mean prediction as the first sample.
        class_names: of the K - 1 foreground classes, as the figures' names show them; none: no class figures.
    """
    pairs, nonempty = _pairwise_dice(overlap, False), _pairwise_dice(overlap, True)
    figures = {
        "dice": pairs.flatten(1).nanmean(1),
        "dice_nonempty": nonempty.flatten(1).nanmean(1),
        "dice_max": pairs.amax(1).nanmean(1),
        "dice_quantile_95": _quantile(pairs.nanmean(2), _QUANTILE),
        "dice_between_raters": _between_raters(overlap),
    }
    names = [*(f"dice_class_{name}" for name in class_names), "dice_whole"] if class_names else []
    # without the pairs that show nothing of a class, whose score the SSN's authors leave out as 0 / 0
    shown = [*(f"dice_shown_{name}" for name in class_names), "dice_shown_whole"] if class_names else []
    if names:
        figures.update(zip(names, _class_dice(overlap).flatten(2).nanmean(2).unbind(1), strict=True))
        figures.update(zip(shown, _class_dice(overlap, torch.nan).flatten(2).nanmean(2).unbind(1), strict=True))
    if with_mean is not None:
        pairs, nonempty = _pairwise_dice(with_mean, False), _pairwise_dice(with_mean, True)
        figures["dice_mean_prediction"] = pairs[:, 0].nanmean(1)
        figures["dice_nonempty_mean_prediction"] = nonempty[:, 0].nanmean(1)
        if names:
            scores = _class_dice(with_mean)[:, :, 0].nanmean(2)  # (B, K)
            figures.update(zip([f"{name}_mean_prediction" for name in names], scores.unbind(1), strict=True))
            scores = _class_dice(with_mean, torch.nan)[:, :, 0].nanmean(2)
            figures.update(zip([f"{name}_mean_prediction" for name in shown], scores.unbind(1), strict=True))
        figures["share_better_than_mean"] = _share_better(pairs)
    return {name: value.float() for name, value in figures.items()}


def _between_raters(overlap: Overlap) -> torch.Tensor:
    """(B,) mean over the pairs of distinct valid raters; NaN where there is no pair."""
    score = 1 - overlap.distance("dice")[:, overlap.num_samples :, overlap.num_samples :]
    pairs = (overlap.valid.unsqueeze(1) & overlap.valid.unsqueeze(2)).to(score.dtype)
    pairs = pairs - torch.diag_embed(overlap.valid.to(score.dtype))
    return (score * pairs).sum((1, 2)) / pairs.sum((1, 2))


def _quantile(scores: torch.Tensor, quantile: float) -> torch.Tensor:
    """(B,) of (B, N); torch refuses an empty batch."""
    return scores.quantile(quantile, dim=1) if len(scores) else scores.sum(1)


def _share_better(pairs: torch.Tensor) -> torch.Tensor:
    """(B,) from scores (B, 1 + N, R), those of the mean prediction first."""
    scores = pairs.nanmean(2)
    share = (scores[:, 1:] > scores[:, :1] + _TIE).to(scores.dtype).mean(1)
    return share.masked_fill(scores[:, 0].isnan(), torch.nan)


def _class_dice(overlap: Overlap, both_empty: float = 1.0) -> torch.Tensor:
    """(B, C + 1, N, R) with the united foreground last; NaN for missing raters."""
    assert overlap.united is not None
    number = overlap.num_samples
    scores = dice_scores(torch.cat([overlap.intersection, overlap.united.unsqueeze(1)], 1), both_empty)
    return scores[:, :, :number, number:].masked_fill(~overlap.valid[:, None, None], torch.nan)


def _pairwise_dice(overlap: Overlap, skip_empty: bool) -> torch.Tensor:
    """(B, N, R) mean over the counted classes, NaN for raters left out."""
    number = overlap.num_samples
    score = overlap.dice()[:, :, :number, number:]
    kept = (overlap.counted.unsqueeze(-1) & overlap.valid.unsqueeze(1)).unsqueeze(2)  # (B, C, 1, R)
    if skip_empty:
        kept = kept & (overlap.sizes()[:, :, number:] > 0).unsqueeze(2)
        mean = (score * kept).sum(1) / kept.sum(1)
    else:
        # An image in which no class occurs at all: its masks are empty alike, and agree.
        mean = torch.where(kept.any(1), (score * kept).sum(1) / kept.sum(1).clamp(min=1), 1.0)
    return mean.masked_fill(~overlap.valid.unsqueeze(1), torch.nan)
