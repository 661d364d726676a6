"""How large the lesion is, samples against raters: the diagonal of the counted overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..errors import InputError
from ._overlap import Overlap, measure_overlap, plain
from ._units import PixelSize, check_pixel_size

__all__ = [
    "AREA_LEVELS",
    "Areas",
    "area_calibration_error",
    "area_coverage",
    "area_crps",
    "area_statistics",
    "mask_areas",
    "area_figures",
]

AREA_LEVELS = tuple(tenth / 10 for tenth in range(1, 10))
_LOW, _HIGH = 0.05, 0.95


class Areas(NamedTuple):
    """Areas or volumes of an image's masks, each (B,), means over the classes."""

    samples: torch.Tensor  # mean over the samples
    low: torch.Tensor  # 5 % quantile of the samples
    high: torch.Tensor  # 95 % quantile of the samples
    raters: torch.Tensor  # mean over the raters; NaN without a valid one


def mask_areas(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    *,
    num_classes: int | None = None,
    pixel_size: PixelSize = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Area (in 3D volume) of every foreground class in every mask.

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: classes with the background, for class maps; None: as many as the batch shows.
        pixel_size: mm^2 of a pixel or mm^3 of a voxel, one number or (B,); 1 counts pixels.

    Returns:
        Of samples (B, C, N) and raters (B, C, R), C = num_classes - 1, float32; NaN for missing raters.

    Example:
        >>> samples, labels = torch.tensor([[[[1, 1, 2]]]]), torch.tensor([[[[0, 2, 2]]]])
        >>> mask_areas(samples, labels, pixel_size=0.5)
        (tensor([[[1.0000],
                 [0.5000]]]), tensor([[[0.],
                 [1.]]]))
    """
    overlap = measure_overlap(samples, labels, rater_valid, num_classes)
    sizes = overlap.sizes() * check_pixel_size(pixel_size, overlap.intersection)[:, None, None]
    drawn, read = sizes.split([overlap.num_samples, overlap.valid.shape[1]], dim=-1)
    return drawn.float(), read.masked_fill(~overlap.valid.unsqueeze(1), torch.nan).float()


def area_statistics(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    *,
    num_classes: int | None = None,
    pixel_size: PixelSize = 1.0,
) -> Areas:
    """Mean area of the samples, their 5 % and 95 % quantiles (interpolated linearly), and mean area of the raters.

    Arguments as in :func:`mask_areas`; each figure is the mean over the classes that the image's averages run over.

    Example:
        >>> samples, labels = torch.tensor([[[[1, 1]], [[0, 0]]]]), torch.tensor([[[[0, 1]]]])
        >>> area_statistics(samples, labels)
        Areas(samples=tensor([1.]), low=tensor([0.1000]), high=tensor([1.9000]), raters=tensor([1.]))
    """
    overlap = measure_overlap(samples, labels, rater_valid, num_classes)
    size = check_pixel_size(pixel_size, overlap.intersection)
    return Areas(*((value * size).float() for value in _areas(overlap, _sorted_sizes(overlap))))


def area_crps(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    unbiased: bool = False,
    *,
    num_classes: int | None = None,
    pixel_size: PixelSize = 1.0,
) -> torch.Tensor:
    """Continuous ranked probability score of the lesion's area, E|a_s - a_y| - E|a_s - a_s'| / 2, mean over raters.

    Gneiting and Raftery, Strictly proper scoring rules (2007), eq. 21, with the samples' areas as the forecast and a
    rater's area as what came true. A proper score: on average it is smallest where the samples' areas have the raters'
    law, and there it is half the raters' mean difference, not 0. For one sample it is the absolute error.

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        unbiased: only distinct samples in E|a_s - a_s'|, the fair score (Ferro, Fair scores for ensemble forecasts,
            2014), whose expectation does not depend on N. NaN for a single sample; single values may be negative. The
            default scores the N samples as they are, which for few of them is larger.
        num_classes: classes with the background, for class maps, whose classes' scores are averaged.
        pixel_size: mm^2 of a pixel or mm^3 of a voxel, one number or (B,); 1 gives pixels or voxels.

    Returns:
        (B,) float32, in the unit of ``pixel_size``; NaN without a valid rater.

    Raises:
        InputError: shapes that do not fit each other, values that are no classes, a pixel size that is not positive.

    Example:
        >>> samples, labels = torch.tensor([[[[1, 1]], [[0, 0]]]]), torch.tensor([[[[0, 1]]]])
        >>> area_crps(samples, labels), area_crps(samples, labels, unbiased=True)  # areas 2 and 0 against 1
        (tensor([0.5000]), tensor([0.]))
    """
    overlap = measure_overlap(samples, labels, rater_valid, num_classes)
    size = check_pixel_size(pixel_size, overlap.intersection)
    return (_crps(overlap, _sorted_sizes(overlap), unbiased) * size).float()


def area_coverage(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    levels: Sequence[float] = AREA_LEVELS,
    *,
    num_classes: int | None = None,
) -> torch.Tensor:
    """Share of the raters whose area lies within the samples' central intervals: area calibration.

    A rater's place among the N samples is the interval [below / (N + 1), (below + equal + 1) / (N + 1)] of the uniform
    scale, where ``below`` samples are smaller and ``equal`` as large (the non-randomized probability integral transform
    of Czado, Gneiting and Held 2009 for a finite sample); the rater counts with the share of that interval that lies in
    [(1 - level) / 2, (1 + level) / 2]. If samples and rater come from one law, the expectation is EXACTLY the level,
    for every N and with any ties, empty masks among them: no curve has to be forgiven for few samples. The price is
    resolution: a single sample covers every level exactly whatever it shows.

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        levels: L numbers from 0 to 1.
        num_classes: classes with the background, for class maps. Coverage is the mean over the classes that a sample or
            a valid rater of the image shows, whatever is given here: one that nobody shows lies on the diagonal by
            itself and would make every model look calibrated.

    Returns:
        (B, L) float32; NaN without a valid rater, and where no mask shows anything.

    Raises:
        InputError: shapes that do not fit each other, values that are no classes, levels outside [0, 1].

    Example:
        >>> samples = torch.tensor([[[[1, 0, 0]], [[1, 1, 0]], [[1, 1, 1]]]])  # areas 1, 2, 3
        >>> area_coverage(samples, samples[:, 1:2], levels=(0.25, 0.5, 0.9))  # the rater's place: 1/4 to 3/4
        tensor([[0.5000, 1.0000, 1.0000]])
    """
    overlap = measure_overlap(samples, labels, rater_valid, num_classes)
    return _coverage(overlap, levels).float()


def area_calibration_error(coverage: torch.Tensor, levels: Sequence[float] = AREA_LEVELS) -> torch.Tensor:
    """Mean over the levels of |coverage - level|: how far the calibration curve of the areas is from its diagonal.

    Args:
        coverage: (..., L) :func:`area_coverage` as the mean over the cases of a data set; of a single case it says
            little, for its raters are few.
        levels: L, those of the coverage.

    Returns:
        (...) float32; NaN where a coverage is.

    Raises:
        InputError: another number of levels, or such outside [0, 1].

    Example:
        >>> area_calibration_error(torch.tensor([0.5, 0.7]), levels=(0.4, 0.8))
        tensor(0.1000)
    """
    coverage = plain(coverage, "coverage")
    _check_levels(levels)
    if coverage.shape[-1:] != (len(levels),):
        raise InputError(f"coverage has shape {tuple(coverage.shape)} for {len(levels)} levels; pass (..., levels).")
    exact = torch.float32 if coverage.device.type == "mps" else torch.float64
    wanted = torch.tensor(levels, dtype=exact, device=coverage.device)
    return (coverage.to(exact) - wanted).abs().mean(-1).float()


def area_figures(
    overlap: Overlap, pixel_size: torch.Tensor | None = None, levels: Sequence[float] = ()
) -> dict[str, torch.Tensor]:
    """``area_...`` of :func:`aleatoric.metrics.functional.multi_rater_figures`, each (B,) float32.

    Args:
        overlap: of samples and raters.
        pixel_size: (B,) mm^2 or mm^3; None: pixels or voxels.
        levels: of ``area_coverage_<percent>``, NaN of a single sample, which covers every level whatever it shows.
    """
    ordered = _sorted_sizes(overlap)
    areas = _areas(overlap, ordered)
    figures = {
        "area_crps": _crps(overlap, ordered, False),
        "area_samples": areas.samples,
        "area_samples_low": areas.low,
        "area_samples_high": areas.high,
        "area_raters": areas.raters,
    }
    if pixel_size is not None:
        figures = {name: value * pixel_size for name, value in figures.items()}
    if levels:
        coverage = _coverage(overlap, levels)
        covered = (coverage if overlap.num_samples > 1 else torch.full_like(coverage, torch.nan)).unbind(1)
        figures.update(zip([f"area_coverage_{100 * level:g}" for level in levels], covered, strict=True))
    return {name: value.float() for name, value in figures.items()}


def _sorted_sizes(overlap: Overlap) -> torch.Tensor:
    """(B, C, N) the samples' sizes in ascending order."""
    return overlap.sizes()[..., : overlap.num_samples].sort(-1).values


def _quantile(ordered: torch.Tensor, quantile: float) -> torch.Tensor:
    """(B, C) of (B, C, N) in ascending order, between two of them linearly."""
    place = quantile * (ordered.shape[-1] - 1)
    below = int(place)
    above = min(below + 1, ordered.shape[-1] - 1)
    return torch.lerp(ordered[..., below], ordered[..., above], place - below)


def _areas(overlap: Overlap, ordered: torch.Tensor) -> Areas:
    raters = overlap.over_raters(overlap.sizes()[..., overlap.num_samples :])
    by_class = ordered.mean(-1), _quantile(ordered, _LOW), _quantile(ordered, _HIGH), raters
    return Areas(*map(overlap.over_classes, by_class))


def _crps(overlap: Overlap, ordered: torch.Tensor, unbiased: bool) -> torch.Tensor:
    number = ordered.shape[-1]
    raters = overlap.sizes()[..., overlap.num_samples :]
    error = (ordered.unsqueeze(-1) - raters.unsqueeze(-2)).abs().mean(2)  # (B, C, R)
    # In ascending order the k-th of N counts k - 1 times with plus and N - k times with minus: no pairs are needed.
    sign = 2 * torch.arange(number, device=ordered.device, dtype=ordered.dtype) - (number - 1)
    spread = (ordered * sign).sum(-1) / (number * (number - 1) if unbiased else number**2)
    return overlap.over_classes(overlap.over_raters(error) - spread)


def _check_levels(levels: Sequence[float]) -> None:
    if not all(0 <= level <= 1 for level in levels):
        raise InputError(f"levels are {list(levels)}; pass numbers from 0 to 1.")


def _coverage(overlap: Overlap, levels: Sequence[float]) -> torch.Tensor:
    """(B, L), see :func:`area_coverage`."""
    _check_levels(levels)
    number, sizes = overlap.num_samples, overlap.sizes()
    samples, raters = sizes[:, :, :number].unsqueeze(-1), sizes[:, :, number:].unsqueeze(-2)
    below = (samples < raters).sum(2).to(sizes.dtype).unsqueeze(-1)  # (B, C, R, 1)
    width = (samples == raters).sum(2).to(sizes.dtype).unsqueeze(-1) + 1
    level = torch.tensor(levels, dtype=sizes.dtype, device=sizes.device) * (number + 1)
    start, stop = (number + 1 - level) / 2, (number + 1 + level) / 2
    inside = (torch.minimum(below + width, stop) - torch.maximum(below, start)).clamp(min=0) / width
    covered = overlap.over_raters(inside)  # (B, C, L)
    shown = (sizes > 0).any(-1).to(sizes.dtype).unsqueeze(-1)
    return (covered * shown).sum(1) / shown.sum(1)
