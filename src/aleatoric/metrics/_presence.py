"""Whether the lesion is there at all: how often samples show one, against how often raters do."""

from __future__ import annotations

import torch

from ..errors import InputError
from ..precision import TIE
from ._calibration import calibration_error
from ._overlap import Overlap, measure_overlap, plain

__all__ = [
    "PRESENCE_BINS",
    "presence_bins",
    "presence_bins_of_cases",
    "presence_brier",
    "presence_calibration_error",
    "presence_figures",
    "presence_rates",
    "rates_of_classes",
]

PRESENCE_BINS = 10


def presence_rates(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    *,
    num_classes: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Share of the samples, and of the raters, that show each foreground class at all.

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: classes with the background, for class maps; None: as many as the batch shows.

    Returns:
        Of samples and of raters, each (B, C) float32; the raters' NaN without a valid one.

    Example:
        >>> samples, labels = torch.tensor([[[[1, 1]], [[0, 0]]]]), torch.tensor([[[[0, 1]]]])
        >>> presence_rates(samples, labels)
        (tensor([[0.5000]]), tensor([[1.]]))
    """
    drawn, read = _presence(measure_overlap(samples, labels, rater_valid, num_classes))
    return drawn.float(), read.float()


def presence_brier(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    unbiased: bool = False,
    *,
    num_classes: int | None = None,
) -> torch.Tensor:
    """Brier score of "is there a lesion?": (p - o)^2, mean over raters, p the share of samples that show one.

    Brier, Verification of forecasts expressed in terms of probability (1950); o is 1 for a rater who drew the class and
    0 for one who did not. With f the share of raters who did it is (p - f)^2 + f (1 - f): the last term is the raters'
    own disagreement, which no model gets below.

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        unbiased: subtract p (1 - p) / (N - 1), the fair score (Ferro 2014), whose expectation does not depend on N; NaN
            for a single sample.
        num_classes: classes with the background, for class maps, whose classes' scores are averaged.

    Returns:
        (B,) float32, from 0 to 1; NaN without a valid rater.

    Example:
        >>> samples, labels = torch.tensor([[[[1, 1]], [[0, 0]]]]), torch.tensor([[[[0, 1]]]])
        >>> presence_brier(samples, labels)
        tensor([0.2500])
    """
    overlap = measure_overlap(samples, labels, rater_valid, num_classes)
    return _brier(overlap, unbiased).float()


def presence_bins(sample_rates: torch.Tensor, rater_rates: torch.Tensor, num_bins: int = PRESENCE_BINS) -> torch.Tensor:
    """What a reliability diagram of presence draws: cases and sums of both rates, by bins of the samples' rate.

    Args:
        sample_rates: (n,), see :func:`presence_rates`. rater_rates: (n,); pairs with a NaN are left out.
        num_bins: of equal width over [0, 1]; the last one holds 1.

    Returns:
        (num_bins, 3) float64: cases, sum of the samples' rates, sum of the raters'. Bins of parts of a data set add up.

    Raises:
        InputError: no tensors, shapes that do not fit each other, rates outside [0, 1].

    Example:
        >>> presence_bins(torch.tensor([0.0, 0.1, 1.0]), torch.tensor([0.0, 0.25, 0.75]), num_bins=2)
        tensor([[2.0000, 0.1000, 0.2500],
                [1.0000, 1.0000, 0.7500]], dtype=torch.float64)
    """
    sample_rates, rater_rates = plain(sample_rates, "sample_rates"), plain(rater_rates, "rater_rates")
    if sample_rates.shape != rater_rates.shape or sample_rates.ndim != 1 or num_bins < 1:
        raise InputError(
            f"sample_rates have shape {tuple(sample_rates.shape)} and rater_rates {tuple(rater_rates.shape)} for "
            f"{num_bins} bins; pass two of shape (n,), and 1 bin or more."
        )
    return presence_bins_of_cases(sample_rates.unsqueeze(0), rater_rates.unsqueeze(0), num_bins)[0]


def presence_bins_of_cases(
    sample_rates: torch.Tensor, rater_rates: torch.Tensor, num_bins: int = PRESENCE_BINS
) -> torch.Tensor:
    """:func:`presence_bins` of each case's own forecasts, one per class; their sum over the cases is the data set's.

    Args:
        sample_rates, rater_rates: (cases, C), see :func:`presence_rates`.
        num_bins: as in :func:`presence_bins`.

    Returns:
        (cases, num_bins, 3) float64.

    Raises:
        InputError: no tensors, shapes that do not fit each other, rates outside [0, 1].
    """
    sample_rates, rater_rates = plain(sample_rates, "sample_rates"), plain(rater_rates, "rater_rates")
    if sample_rates.shape != rater_rates.shape or sample_rates.ndim != 2 or num_bins < 1:
        raise InputError(
            f"sample_rates have shape {tuple(sample_rates.shape)} and rater_rates {tuple(rater_rates.shape)} for "
            f"{num_bins} bins; pass two of shape (cases, C), and 1 bin or more."
        )
    if bool(((sample_rates < 0) | (sample_rates > 1) | (rater_rates < 0) | (rater_rates > 1)).any()):
        raise InputError("rates are outside [0, 1]; pass shares of samples and of raters.")
    pairs = torch.stack([sample_rates, rater_rates], dim=-1).double()
    known = ~pairs.isnan().any(-1, keepdim=True)
    rows = torch.cat([known.double(), pairs.masked_fill(~known, 0)], dim=-1)  # (cases, C, 3)
    # rates are float32, and 0.3 of 10 bins must not fall into the bin below for its last bit
    bins = ((rows[..., 1] + TIE) * num_bins).long().clamp(max=num_bins - 1)
    return rows.new_zeros(len(rows), num_bins, 3).scatter_add(1, bins.unsqueeze(-1).expand(rows.shape), rows)


def presence_calibration_error(bins: torch.Tensor) -> torch.Tensor:
    """Expected calibration error of "is there a lesion?": ECE over forecasts in place of pixels.

    The mean, over all forecasts, of ``|mean rate of the samples - mean rate of the raters|`` of their bin.

    Args:
        bins: (..., num_bins, 3) of :func:`presence_bins`, of all forecasts: every case, and every class of it, is one,
            so that a class that is shown too often does not make up for one that is shown too seldom.

    Returns:
        (...) float32; NaN without a forecast.

    Raises:
        InputError: no bins.

    Example:
        >>> bins = presence_bins(torch.tensor([0.0, 0.1, 1.0]), torch.tensor([0.0, 0.25, 0.7]), num_bins=2)
        >>> presence_calibration_error(bins)  # (|.1 - .25| + |1. - .7|) / 3
        tensor(0.1500)
    """
    bins = plain(bins, "bins")
    if bins.ndim < 2 or bins.shape[-1] != 3:
        raise InputError(f"bins have shape {tuple(bins.shape)}; pass what presence_bins gives, (..., bins, 3).")
    return calibration_error(bins.unsqueeze(-3))


def presence_figures(overlap: Overlap) -> dict[str, torch.Tensor]:
    """``presence_...`` of :func:`aleatoric.metrics.functional.multi_rater_figures`, each (B,) float32."""
    drawn, read = _presence(overlap)
    return {
        "presence_samples": overlap.over_classes(drawn).float(),
        "presence_raters": overlap.over_classes(read).float(),
        "presence_brier": _brier(overlap, False).float(),
    }


def rates_of_classes(overlap: Overlap) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`presence_rates`, each (B, C) float32 whatever a batch shows: without a number of classes of any, C = 1."""
    if overlap.num_classes is None and overlap.intersection.shape[1] > 1:
        assert overlap.united is not None
        overlap = overlap._replace(intersection=overlap.united.unsqueeze(1))
    drawn, read = _presence(overlap)
    return drawn.float(), read.float()


def _presence(overlap: Overlap) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, C) of samples and of raters."""
    shown = (overlap.sizes() > 0).to(overlap.intersection.dtype)
    return shown[..., : overlap.num_samples].mean(-1), overlap.over_raters(shown[..., overlap.num_samples :])


def _brier(overlap: Overlap, unbiased: bool) -> torch.Tensor:
    drawn, read = _presence(overlap)
    score = (drawn - read).square() + read * (1 - read)
    if unbiased:
        # 0 / 0 is NaN: of a single sample no spread is known
        score = score - drawn * (1 - drawn) / (overlap.num_samples - 1 or torch.nan)
    return overlap.over_classes(score)
