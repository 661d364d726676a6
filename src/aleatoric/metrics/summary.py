"""What is kept of a batch's samples as they are drawn: memory is one piece and the summary, however many they are.

Every figure of an evaluation is arithmetic on the summary and the raters' labels. One pass over the logits makes it, in
blocks that stay in a CPU's cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as nnf

from ..errors import InputError
from ..precision import TIE
from ._overlap import _num_foreground, check_rater_valid, class_maps, plain

__all__ = ["SampleSummary", "summarize_samples"]

# A certain and wrong sample costs 100 nats per pixel, not infinity (torch.nn.BCELoss, metrics/_costs.py).
_LOG_FLOOR = -100.0
# Elements of a block. On the CPU its four copies have to stay in the cache, an accelerator wants it large.
_BLOCK_ELEMENTS = {"cpu": 1 << 19, "accelerator": 1 << 25}
_MOST_CLASSES = 255


class SampleSummary(NamedTuple):
    """What is kept of the samples of a batch: B images, N samples, K class channels, R raters, pixels *S."""

    masks: Tensor  # (B, N, *S) uint8 class maps of the samples: logit > 0 for K = 1, else the largest of K
    mean: Tensor  # (B, K, *S) float32 mean over the samples of their probabilities (sigmoid for K = 1, else softmax)
    mean_log: Tensor  # (B, C, *S) float32 mean of their log-probabilities >= -100; C = max(K, 2), background first
    mean_mask: Tensor  # (B, *S) uint8 the one answer that stands for the samples
    cross_entropy: Tensor | None  # (B, N, R) float32 nats per pixel of rater r's labels under sample n; NaN: no rater


def summarize_samples(
    pieces: Iterable[Tensor],
    labels: Tensor | None = None,
    rater_valid: Tensor | None = None,
    mean_logits: Tensor | None = None,
) -> SampleSummary:
    """Summarize samples that come in pieces, one after the other, none of which is kept.

    Probabilities and logarithms are computed in float32 whatever the logits' type, autocast or not, the logarithms from
    the logits: a sample that is certain loses no digits. How the samples are split into pieces, and their order, change
    nothing but float32's last digits, and at a tie ``mean_mask`` not at all: a mean is above one half, or above that of
    another class, by more than 1e-6. An iterator that keeps no piece itself is never asked for the next while one is
    still held.

    Args:
        pieces: logits (B, n_i, K, *S); N is the sum of the n_i.
        labels: (B, R, *S) masks or class maps. With them the summary has the cross-entropies, which cannot be had from
            the rest of it.
        rater_valid: (B, R) bool; None: all raters are there. A missing rater's map may hold anything.
        mean_logits: (B, K, *S) of a network that has a mean of its own (see :class:`aleatoric.transforms.
            MeanPredictiond`), for ``mean_mask``. None: the mask of the mean probabilities, above one half or the
            largest of K > 1, of equal ones the first.

    Returns:
        The summary, on the pieces' device. ``cross_entropy`` is what :func:`~aleatoric.metrics._costs.
        cross_entropy_cost` gives for exact probabilities; those of float32 are 1 from a logit of 17 on, and cost 100
        there where the logit costs 17.

    Raises:
        InputError: no piece, pieces or labels that do not fit each other, values that are no classes, logits of NaN.

    Example:
        >>> logits = torch.tensor([[[[[9.0, 0.0]]], [[[9.0, -9.0]]]]])  # one image of 1 x 2 pixels, two samples
        >>> summary = summarize_samples([logits[:, :1], logits[:, 1:]])
        >>> summary.masks
        tensor([[[[1, 0]],
        <BLANKLINE>
                 [[1, 0]]]], dtype=torch.uint8)
        >>> summary.mean
        tensor([[[[0.9999, 0.2501]]]])
    """
    sums: _Sums | None = None
    for piece in pieces:
        piece = plain(piece, "a piece of the samples")
        if sums is None:
            sums = _Sums(piece, labels, rater_valid)
        sums.add(piece)
        del piece  # or it would live on while the next one is drawn
    if sums is None:
        raise InputError("found no samples to summarize; pass at least one piece of logits (B, n, K, *S).")
    return sums.summary(mean_logits)


class _Sums:
    """Running sums over the samples of a batch."""

    def __init__(self, first: Tensor, labels: Tensor | None, rater_valid: Tensor | None) -> None:
        if first.ndim < 4 or 0 in first.shape[1:] or not first.is_floating_point():
            raise InputError(
                f"a piece of the samples is {first.dtype} of shape {tuple(first.shape)}; pass logits (B, n, K, *S), n "
                "and K at least 1."
            )
        self.images, self.channels, *self.spatial = first.shape[0], *first.shape[2:]
        if self.channels > _MOST_CLASSES:
            raise InputError(f"samples have {self.channels} classes, and class maps hold {_MOST_CLASSES} at most.")
        self.device = first.device
        self.budget = _BLOCK_ELEMENTS["cpu" if first.device.type == "cpu" else "accelerator"]
        classes = max(self.channels, 2)
        # float64: a float32 sum of a thousand samples is off by more than what separates a tie from none
        self.mean = torch.zeros(self.images, self.channels, *self.spatial, dtype=self._sum_type(), device=self.device)
        self.mean_log = torch.zeros(self.images, classes, *self.spatial, device=self.device)
        self.masks: list[Tensor] = []
        self.costs: list[Tensor] = []
        self.labels, self.valid = self._check_labels(labels, rater_valid, classes)

    def _check_labels(
        self, labels: Tensor | None, rater_valid: Tensor | None, classes: int
    ) -> tuple[Tensor | None, Tensor | None]:
        if labels is None:
            return None, None
        labels = class_maps(labels, "labels")
        if labels.ndim < 3 or labels.shape[0] != self.images or list(labels.shape[2:]) != self.spatial:
            raise InputError(
                f"labels have shape {tuple(labels.shape)} where samples have {self.images} images of "
                f"{tuple(self.spatial)}; pass (B, R, *S) of the same images."
            )
        if labels.device != self.device:
            raise InputError(f"samples are on {self.device} and labels on {labels.device}; move them to one device.")
        valid = check_rater_valid(rater_valid, labels)
        if rater_valid is not None:
            labels = labels.masked_fill(~valid.view(*valid.shape, *[1] * len(self.spatial)), 0)
        _num_foreground([("labels", labels)], classes)
        return labels, valid

    def add(self, piece: Tensor) -> None:
        """Add the logits (B, n, K, *S)."""
        expected = (self.images, self.channels, *self.spatial)
        if (piece.shape[0], *piece.shape[2:]) != expected or piece.shape[1] == 0:
            raise InputError(
                f"a piece of the samples has shape {tuple(piece.shape)} after one of {self.images} images, "
                f"{self.channels} channels and {tuple(self.spatial)} pixels; pass pieces of the same images."
            )
        if piece.device != self.device:
            raise InputError(f"pieces are on {self.device} and {piece.device}; draw all samples on one device.")
        number = piece.shape[1]
        masks = torch.empty(self.images, number, *self.spatial, dtype=torch.uint8, device=self.device)
        raters = 0 if self.labels is None else self.labels.shape[1]
        cost = torch.zeros(self.images, number, raters, dtype=self._sum_type(), device=self.device)
        add = self._add_binary if self.channels == 1 else self._add_classes
        # Under autocast the products with the labels would be rounded to 16 bits.
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            for some, draws, lines in self._blocks(number):
                pixels: Any = (..., lines, *[slice(None)] * (len(self.spatial) - 1))
                block = piece[some, draws][pixels].float()
                labels = None if self.labels is None else self.labels[some][pixels].flatten(2)
                mean, mean_log = self.mean[some][pixels], self.mean_log[some][pixels]
                entropies = add(block, labels, masks[some, draws][pixels], mean, mean_log)
                if entropies is not None:
                    cost[some, draws] += entropies
        self.masks.append(masks)
        self.costs.append(cost)

    def _sum_type(self) -> torch.dtype:
        return torch.float32 if self.device.type == "mps" else torch.float64

    def _blocks(self, number: int) -> Iterator[tuple[slice, slice, slice]]:
        """Images, samples and lines (of the first spatial axis) of one block after the other."""
        line = self.channels * math.prod(self.spatial[1:])
        draws = min(number, max(1, self.budget // line))
        lines = min(self.spatial[0], max(1, self.budget // (line * draws)))
        rows = max(1, self.budget // (line * draws * lines)) if lines == self.spatial[0] else 1
        for row in range(0, self.images, rows):
            for draw in range(0, number, draws):
                for top in range(0, self.spatial[0], lines):
                    yield slice(row, row + rows), slice(draw, draw + draws), slice(top, top + lines)

    @staticmethod
    def _add_binary(x: Tensor, labels: Tensor | None, masks: Tensor, mean: Tensor, mean_log: Tensor) -> Tensor | None:
        """Add a block of logits (b, n, 1, *S) of the foreground; (b, n, R) nats, summed over the pixels."""
        x = x.squeeze(2)
        torch.gt(x, 0, out=masks)
        mean[:, 0] += torch.sigmoid(x).sum(1)
        # -ln (1 - p) = softplus(x) = max(x, 0) + softplus(-|x|), and ln p = min(x, 0) - softplus(-|x|): of a certain
        # sample softplus(x) - x would be the noise of a difference. Cut off here, both end at 100.
        x = x.clamp(_LOG_FLOOR, -_LOG_FLOOR)
        doubt = nnf.softplus(x.abs().neg_())
        background = x.relu().add_(doubt)
        foreground = x.clamp_(max=0).sub_(doubt)
        mean_log[:, 0] -= background.sum(1)
        mean_log[:, 1] += foreground.sum(1)
        if labels is None:
            return None
        drawn = labels.to(x.dtype).transpose(1, 2)
        return background.flatten(2) @ (1 - drawn) - foreground.flatten(2) @ drawn

    @staticmethod
    def _add_classes(x: Tensor, labels: Tensor | None, masks: Tensor, mean: Tensor, mean_log: Tensor) -> Tensor | None:
        """Add a block of logits (b, n, K, *S) of K classes; (b, n, R) nats, summed over the pixels."""
        masks.copy_(x.max(2).indices)  # argmax is ten times slower here
        logs = x.log_softmax(2).clamp_(min=_LOG_FLOOR)
        mean_log += logs.sum(1)
        entropies = None
        if labels is not None:
            flat = logs.flatten(3)
            entropies = torch.zeros(*x.shape[:2], labels.shape[1], device=x.device)
            for c in range(x.shape[2]):
                entropies -= flat[:, :, c] @ (labels == c).to(x.dtype).transpose(1, 2)
        mean += logs.exp_().sum(1)
        return entropies

    def summary(self, mean_logits: Tensor | None) -> SampleSummary:
        """The sums as means."""
        masks = self.masks[0] if len(self.masks) == 1 else torch.cat(self.masks, dim=1)
        mean, mean_log = self.mean.div_(masks.shape[1]).float(), self.mean_log.div_(masks.shape[1])
        if not bool(mean.isfinite().all()):
            raise InputError("samples hold NaN; look for the network's first operation that gives one.")
        if mean_logits is None:
            chosen = mean[:, 0] > 0.5 + TIE if self.channels == 1 else _first_largest(mean)
        else:
            answer = plain(mean_logits, "mean_logits")
            if answer.shape != mean.shape:
                raise InputError(
                    f"mean_logits have shape {tuple(answer.shape)} where the samples' mean has {tuple(mean.shape)}; "
                    "pass (B, K, *S) of the same images."
                )
            if bool(answer.isnan().any()):
                raise InputError("mean_logits hold NaN; look for the network's first operation that gives one.")
            chosen = answer[:, 0] > 0 if self.channels == 1 else answer.argmax(1)
        cost = None
        if self.valid is not None:
            cost = torch.cat(self.costs, dim=1).div_(math.prod(self.spatial)).float()
            cost = cost.masked_fill(~self.valid.unsqueeze(1), math.nan)
        return SampleSummary(masks, mean, mean_log, chosen.to(torch.uint8), cost)


def _first_largest(mean: Tensor) -> Tensor:
    """(B, *S) the first of the classes (B, K, *S) whose mean is the largest but for rounding."""
    return (mean >= mean.amax(1, keepdim=True) - TIE).to(torch.uint8).max(1).indices  # argmax is ten times slower
