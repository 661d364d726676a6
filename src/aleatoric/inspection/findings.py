"""The numbers behind the pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import PreparedCases, PreparedDataset
from ..diagnostics import pixel_entropy, rater_entropy
from ..errors import InputError
from ..randomness import seeded
from ..transforms import SummarizeSamplesd

__all__ = ["Cases", "Shown", "Summary", "evenly", "plane_of", "read_cases", "summarise_samples"]


class Cases(NamedTuple):
    """Images of a section with their raters, on the host."""

    images: Tensor  # (P, C, *S)  as the network sees them
    labels: Tensor  # (P, R, *S)
    rater_valid: Tensor  # (P, R)
    rows: list[dict[str, str]]  # of cases.csv

    def some(self, positions: Sequence[int]) -> Cases:
        """Those of them."""
        chosen = list(positions)
        rows = [self.rows[position] for position in chosen]
        return Cases(self.images[chosen], self.labels[chosen], self.rater_valid[chosen], rows)


class Shown(NamedTuple):
    """A plane of a case, and the samples' foreground in it."""

    image: np.ndarray  # (C, H, W)
    labels: np.ndarray  # (R, H, W)
    rater_valid: np.ndarray  # (R,)
    mean: np.ndarray  # (H, W)
    std: np.ndarray  # (H, W)
    name: str


class Summary(NamedTuple):
    """Of the samples of P cases."""

    output_entropy: Tensor  # (P,) nats, of the mean prediction
    rater_entropy: Tensor  # (P,) nats
    shown: list[Shown]


def evenly(count: int, wanted: int) -> list[int]:
    """``wanted`` positions spread over ``count``, ascending; 0: all."""
    wanted = count if wanted <= 0 else min(wanted, count)
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int)).tolist()


def read_cases(dataset: PreparedDataset, section: str, fold: int, wanted: int) -> Cases:
    """Cases of a section, spread evenly over it; only they are read."""
    source = PreparedCases(dataset, section, fold)
    positions = evenly(len(source), wanted)
    items = [source[position] for position in positions]
    images, labels, valid = (torch.stack([item[key] for item in items]) for key in ("image", "label", "rater_valid"))
    return Cases(images, labels, valid, [dataset.cases[source.indices[position]] for position in positions])


def plane_of(labels: Tensor) -> int | None:
    """Of a volume's labels (R, H, W, D) the plane with the most foreground; None for a flat image."""
    return None if labels.ndim == 3 else int((labels > 0).sum((0, 1, 2)).argmax())


@torch.no_grad()
def summarise_samples(
    network: Any,
    cases: Cases,
    classes: int,
    num_samples: int,
    seed: int,
    shown: Sequence[int],
    chunk_size: int = 8,
    progress: Callable[[int], Any] | None = None,
) -> Summary:
    """Draw N samples of each case and keep what the pictures need of them.

    Args:
        network: has ``sample(image, num_samples)``.
        cases: what it sees.
        classes: of the labels, with the background.
        num_samples: N.
        seed: of the draws.
        shown: positions whose mean and standard deviation are kept.
        chunk_size: cases at a time.
        progress: called with the number of cases that were finished.
    """
    if not hasattr(network, "sample"):
        raise InputError(f"the network is a {type(network).__name__}, expected one with samples: take another bundle.")
    device = next(network.parameters()).device
    summarise = SummarizeSamplesd("pred", spatial_dims=cases.images.ndim - 2)
    entropies, pictures = [], []
    with seeded(device, seed):
        for start in range(0, len(cases.images), chunk_size):
            images = cases.images[start : start + chunk_size]
            result = summarise({"pred": network.sample(images.to(device), num_samples)})
            mean, std = result["pred_mean"], result["pred_std"]  # (b, K, *S)
            entropies.append(pixel_entropy(mean))
            foreground = mean[:, 0] if mean.shape[1] == 1 else 1.0 - mean[:, 0]
            for position in set(range(start, start + len(images))) & set(shown):
                maps = (foreground[position - start].cpu(), std[position - start, 0].cpu())
                pictures.append((position, _plane(cases, position, maps)))
            if progress is not None:
                progress(len(images))
    pictures.sort(key=lambda pair: pair[0])
    raters = [
        rater_entropy(labels, valid, classes)
        for labels, valid in zip(cases.labels.split(chunk_size), cases.rater_valid.split(chunk_size))
    ]
    return Summary(torch.cat(entropies).cpu(), torch.cat(raters), [picture for _, picture in pictures])


def _plane(cases: Cases, position: int, maps: tuple[Tensor, Tensor]) -> Shown:
    parts = [cases.images[position], cases.labels[position], *maps]
    depth = plane_of(cases.labels[position])
    image, labels, mean, std = (part.numpy() if depth is None else part[..., depth].numpy() for part in parts)
    return Shown(image, labels, cases.rater_valid[position].numpy(), mean, std, cases.rows[position]["case"])
