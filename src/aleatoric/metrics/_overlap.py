"""The one pass over the pixels: how many of them every two masks share. All overlap metrics are arithmetic on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..errors import InputError

__all__ = ["Overlap", "check_rater_valid", "class_maps", "dice_scores", "measure_overlap", "plain"]

# Masks are turned to float32 for the matrix product, so many elements at a time: on the CPU the block has to stay in
# the cache, an accelerator wants it large. Counts are exact, because float32 holds every whole number up to 2^24.
_BLOCK_ELEMENTS = {"cpu": 1 << 21, "accelerator": 1 << 26}
_EXACT_PIXELS = 1 << 24
_HIGHEST_CLASS = 254
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


class Overlap(NamedTuple):
    """Pixel counts of all pairs among T = N samples + R raters of an image, foreground class by foreground class."""

    intersection: torch.Tensor  # (B, C, T, T) pixels of class c in both masks; the diagonal holds the masks' sizes
    valid: torch.Tensor  # (B, R) bool
    num_samples: int  # N
    num_classes: int | None  # with the background, where it was given
    united: torch.Tensor | None = None  # (B, T, T) pixels of any foreground class in both masks, where asked for

    @property
    def counted(self) -> torch.Tensor:
        """(B, C) bool: the foreground classes that this image's class averages run over.

        All of them where their number was given, else those that occur in any of the masks.
        """
        sizes = self.sizes()
        return (sizes > 0).any(-1) if self.num_classes is None else torch.ones_like(sizes[..., 0], dtype=torch.bool)

    def of_samples(self, start: int, stop: int) -> Overlap:
        """The same count of some of the samples and all raters."""
        masks = torch.arange(self.intersection.shape[-1], device=self.intersection.device)
        kept = torch.cat([masks[start:stop], masks[self.num_samples :]])
        pairs = (..., kept.unsqueeze(-1), kept)
        united = None if self.united is None else self.united[pairs]
        return self._replace(intersection=self.intersection[pairs], num_samples=stop - start, united=united)

    def iou(self) -> torch.Tensor:
        """(B, C, T, T) |a & b| / |a | b|, 1 where both are empty."""
        size = self.sizes()
        union = size.unsqueeze(-1) + size.unsqueeze(-2) - self.intersection
        return torch.where(union > 0, self.intersection / union.clamp(min=1), 1.0)

    def dice(self) -> torch.Tensor:
        """(B, C, T, T) 2 |a & b| / (|a| + |b|), 1 where both are empty."""
        return dice_scores(self.intersection)

    def sizes(self) -> torch.Tensor:
        """(B, C, T) pixels of class c in every mask."""
        return self.intersection.diagonal(dim1=-2, dim2=-1)

    def distance(self, kernel: str = "iou") -> torch.Tensor:
        """(B, T, T): 1 - score, averaged over the counted classes; 0 where an image counts no class at all."""
        return self.over_classes(1 - (self.dice() if kernel == "dice" else self.iou()))

    def over_classes(self, values: torch.Tensor) -> torch.Tensor:
        """(B, ...) mean of (B, C, ...) over the counted classes; 0 where an image counts no class at all."""
        weight = self.counted.to(values.dtype).view(*values.shape[:2], *[1] * (values.ndim - 2))
        return (values * weight).sum(1) / weight.sum(1).clamp(min=1)

    def over_raters(self, values: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) mean of (B, C, R, ...) over the valid raters; NaN where an image has none."""
        weight = self.valid.to(values.dtype).view(len(values), 1, values.shape[2], *[1] * (values.ndim - 3))
        return (values * weight).sum(2) / weight.sum(2)


def dice_scores(intersection: torch.Tensor, both_empty: float = 1.0) -> torch.Tensor:
    """2 |a & b| / (|a| + |b|) from pixel counts (..., T, T) whose diagonals hold the masks' sizes."""
    size = intersection.diagonal(dim1=-2, dim2=-1)
    total = size.unsqueeze(-1) + size.unsqueeze(-2)
    return torch.where(total > 0, 2 * intersection / total.clamp(min=1), both_empty)


def plain(values: torch.Tensor, what: str) -> torch.Tensor:
    """The tensor without MONAI's meta data, whose bookkeeping would run at every operation."""
    if not isinstance(values, torch.Tensor):
        raise InputError(f"{what} is a {type(values).__name__}; pass a torch tensor.")
    return values.detach().as_subclass(torch.Tensor)


def class_maps(values: torch.Tensor, what: str) -> torch.Tensor:
    """As :func:`plain`, of a type that torch can compare: of uint16 and wider it knows little more than the name."""
    values = plain(values, what)
    return values.to(torch.int64) if values.dtype in _UNSIGNED else values


def check_rater_valid(rater_valid: torch.Tensor | None, labels: torch.Tensor) -> torch.Tensor:
    """(B, R) bool on the labels' device; all True where ``rater_valid`` is None."""
    shape = labels.shape[:2]
    if rater_valid is None:
        return torch.ones(shape, dtype=torch.bool, device=labels.device)
    rater_valid = plain(rater_valid, "rater_valid")
    if rater_valid.shape != shape:
        raise InputError(
            f"rater_valid has shape {tuple(rater_valid.shape)} where labels have {shape[0]} images of {shape[1]} "
            f"raters; pass a bool tensor of shape {tuple(shape)}."
        )
    return rater_valid.to(device=labels.device, dtype=torch.bool)


def _check_shapes(samples: torch.Tensor, labels: torch.Tensor | None) -> None:
    if samples.ndim < 3 or 0 in samples.shape[1:]:
        raise InputError(f"samples have shape {tuple(samples.shape)}; pass masks of shape (B, N, *S), N at least 1.")
    if labels is None:
        return
    if labels.ndim < 3 or 0 in labels.shape[1:]:
        raise InputError(f"labels have shape {tuple(labels.shape)}; pass masks of shape (B, R, *S), R at least 1.")
    if samples.shape[0] != labels.shape[0] or samples.shape[2:] != labels.shape[2:]:
        raise InputError(
            f"samples {tuple(samples.shape)} and labels {tuple(labels.shape)} differ in more than the second axis; "
            "pass (B, N, *S) and (B, R, *S) of the same images."
        )
    if samples.device != labels.device:
        raise InputError(f"samples are on {samples.device} and labels on {labels.device}; move them to one device.")


def _check_mean_prediction(mean_prediction: torch.Tensor, samples: torch.Tensor) -> None:
    expected = (samples.shape[0], *samples.shape[2:])
    if mean_prediction.shape != expected:
        raise InputError(
            f"mean_prediction has shape {tuple(mean_prediction.shape)} where samples have {tuple(samples.shape)}; "
            f"pass one class map per image, {tuple(expected)}."
        )
    if mean_prediction.device != samples.device:
        raise InputError(
            f"mean_prediction is on {mean_prediction.device} and samples on {samples.device}; move them to one device."
        )


def _highest_class(maps: torch.Tensor, what: str) -> int:
    """The largest class index; refuses what is no class map."""
    if maps.dtype == torch.bool or maps.numel() == 0:
        return 1
    if maps.is_complex():
        raise InputError(f"{what} are {maps.dtype}; pass masks or integer class maps.")
    if maps.is_floating_point() and not bool((maps == maps.round()).all()):
        raise InputError(f"{what} hold fractions or NaN; pass masks or class maps (threshold or argmax them first).")
    low, high = (torch.zeros((), dtype=maps.dtype), maps.amax()) if maps.dtype == torch.uint8 else torch.aminmax(maps)
    if maps.is_floating_point() and not bool(low.isfinite() & high.isfinite()):
        raise InputError(f"{what} hold infinity; pass masks or class maps (threshold or argmax them first).")
    if int(low) < 0:
        raise InputError(f"{what} hold the class {int(low)}; classes are numbered from 0, the background.")
    return int(high)


def _num_foreground(parts: Sequence[tuple[str, torch.Tensor]], num_classes: int | None) -> int:
    if num_classes is not None and num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; give the number of classes with the background, or None.")
    highest = 1
    for what, maps in parts:
        found = _highest_class(maps, what)
        if num_classes is not None and found >= max(num_classes, 2):
            raise InputError(
                f"{what} hold the class {found} where num_classes is {num_classes}; "
                "classes run from 0 to num_classes - 1, so correct the one or the other."
            )
        if found > _HIGHEST_CLASS:
            raise InputError(
                f"{what} hold the class {found}, and classes end at {_HIGHEST_CLASS} (255 marks a missing rater); "
                "pass masks of 0 and 1 or class maps, and rater_valid where raters are missing."
            )
        highest = max(highest, found)
    return highest if num_classes is None else max(num_classes, 2) - 1


def count_intersections(parts: Sequence[torch.Tensor], num_foreground: int, united: bool = False) -> torch.Tensor:
    """Pixels that every two masks share, by matrix products over blocks of bounded size.

    Args:
        parts: class maps (B, T_i, *S); the masks of all parts are compared with each other, T = sum of T_i.
        num_foreground: C, the highest class.
        united: count the union of all foreground classes besides, as one more class behind them.

    Returns:
        (B, C, T, T), or (B, C + 1, T, T), exact whole numbers, float64 (float32 on devices without it).
    """
    flat = [(p.view(torch.uint8) if p.dtype == torch.bool else p).flatten(2) for p in parts]
    device, images, pixels = flat[0].device, flat[0].shape[0], flat[0].shape[2]
    masks = sum(p.shape[1] for p in flat)
    budget = _BLOCK_ELEMENTS["cpu" if device.type == "cpu" else "accelerator"]
    columns = min(pixels, _EXACT_PIXELS, max(1, budget // masks))
    rows = max(1, min(images, budget // (masks * columns)))
    count_type = torch.float32 if device.type == "mps" else torch.float64
    channels = num_foreground + int(united)
    counts = torch.zeros(images, channels, masks, masks, dtype=count_type, device=device)
    block = torch.empty(rows, masks, columns, dtype=torch.float32, device=device)
    # Under autocast the product would be rounded to 16 bits, and the counts with it.
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for first in range(0, images, rows):
            last = min(first + rows, images)
            for start in range(0, pixels, columns):
                stop = min(start + columns, pixels)
                for c in range(1, channels + 1):
                    view, offset = block[: last - first, :, : stop - start], 0
                    for part in flat:
                        piece = part[first:last, :, start:stop]
                        if num_foreground > 1:
                            piece = piece == c if c <= num_foreground else piece != 0
                        view[:, offset : offset + part.shape[1]].copy_(piece)
                        offset += part.shape[1]
                    counts[first:last, c - 1] += torch.bmm(view, view.transpose(1, 2))
    return counts


def measure_overlap(
    samples: torch.Tensor,
    labels: torch.Tensor | None,
    rater_valid: torch.Tensor | None = None,
    num_classes: int | None = None,
    *,
    mean_prediction: torch.Tensor | None = None,
    united: bool = False,
) -> Overlap:
    """Count the overlaps of all samples (B, N, *S) and raters (B, R, *S) of every image, once.

    A missing rater's map is not looked at: it may hold anything. A ``mean_prediction`` (B, *S) is counted as one more
    sample, before the others. ``united``: count the union of all foreground classes too.
    """
    samples = class_maps(samples, "samples")
    parts = [("samples", samples)]
    if labels is None:
        _check_shapes(samples, None)
        valid = torch.ones(samples.shape[0], 0, dtype=torch.bool, device=samples.device)
    else:
        labels = class_maps(labels, "labels")
        _check_shapes(samples, labels)
        valid = check_rater_valid(rater_valid, labels)
        if rater_valid is not None:
            labels = labels.masked_fill(~valid.view(*valid.shape, *[1] * (labels.ndim - 2)), 0)
        parts.append(("labels", labels))
    if mean_prediction is not None:
        mean_prediction = class_maps(mean_prediction, "mean_prediction")
        _check_mean_prediction(mean_prediction, samples)
        parts.insert(0, ("mean predictions", mean_prediction.unsqueeze(1)))
    num_foreground = _num_foreground(parts, num_classes)
    counts = count_intersections([maps for _, maps in parts], num_foreground, united and num_foreground > 1)
    return Overlap(
        counts[:, :num_foreground],
        valid,
        samples.shape[1] + (mean_prediction is not None),
        num_classes,
        counts[:, -1] if united else None,
    )
