"""Sampled masks against the law that they should follow; everything is first a value per image."""

from __future__ import annotations

import torch
from torch import Tensor

from aleatoric.metrics.functional import iou_distance
from known_answer.law import MODES, Scenes, probabilities, support

__all__ = ["ANSWERS", "BINS", "TOLERANCE", "figures", "mode_frequencies", "per_image", "reliability", "standard_errors"]

ANSWERS = ("empty", *MODES, "none")  # what a sample can be
TOLERANCE = 0.3  # a mask farther than this from every mask of the law belongs to no mode
BINS = 9  # of the true presence, from 0.1 to 1
_IMAGES = 32  # whose samples are compared at a time


def per_image(samples: Tensor, scenes: Scenes) -> dict[str, Tensor]:
    """What each image's samples say, compared with the law of its scene.

    Args:
        samples: (B, N, H, W) bool, N at least 2.
        scenes: B.

    Returns:
        ``ged`` (B,): 2 E d(s, y) - E d(s, s') - E d(y, y') with d = 1 - IoU and d = 0 for two empty masks; expectations
        over y are sums over the law, those over s are means over the samples, without pairs of a sample with itself:
        it is unbiased whatever N is. ``frequencies`` (B, 5) of ANSWERS among the samples, ``truth`` (B, 5) their
        probabilities.
    """
    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(samples), _IMAGES):
        some = samples[start : start + _IMAGES]
        masks, chances = support(Scenes(*(values[start : start + _IMAGES] for values in scenes)))
        chances = chances / chances.sum(1, keepdim=True)
        cross = iou_distance(some, masks)  # (b, N, M)
        number = some.shape[1]
        among_samples = iou_distance(some, some).sum((1, 2)) / (number * (number - 1))
        among_raters = torch.einsum("bi,bij,bj->b", chances, iou_distance(masks, masks), chances)
        ged = 2 * torch.einsum("bnm,bm->bn", cross, chances).mean(1) - among_samples - among_raters
        parts.append((ged, mode_frequencies(some, cross)))
    ged, frequencies = (torch.cat(values) for values in zip(*parts))
    truth = probabilities(scenes)
    return {"ged": ged, "frequencies": frequencies, "truth": torch.cat([truth, torch.zeros_like(truth[:, :1])], dim=1)}


def mode_frequencies(samples: Tensor, cross: Tensor) -> Tensor:
    """Share of each of ANSWERS among the samples.

    A sample that is not empty belongs to the mode of the nearest mask of the law, or to none if that is farther than
    TOLERANCE.

    Args:
        samples: (B, N, H, W) bool.
        cross: (B, N, M) their distances to the masks of :func:`support`, the empty one first.

    Returns:
        (B, 5).
    """
    nearest, which = cross[..., 1:].min(-1)  # (B, N)
    answer = 1 + which // ((cross.shape[-1] - 1) // len(MODES))
    answer = torch.where(nearest > TOLERANCE, len(ANSWERS) - 1, answer)
    answer = torch.where(samples.flatten(2).any(-1), answer, 0)
    return torch.nn.functional.one_hot(answer, len(ANSWERS)).float().mean(1)


def figures(values: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """The figures of a set of images; leading axes are sets of their own.

    Args:
        values: what :func:`per_image` gave, ``ged`` (..., B), ``frequencies`` and ``truth`` (..., B, 5).
        number: N, of samples.

    Returns:
        each (...). ``ged``: mean. ``total_variation``: mean of half the sum of |frequency - probability| over ANSWERS.
        ``presence_error``: mean over images of |mean frequency - mean probability| of not being empty in the image's
        bin; bins are of the true probability, so the noise of N samples does not choose the bin. ``presence_brier``:
        what the Brier score of the probability of not being empty exceeds its optimum by, which is the mean squared
        difference from the true one; the variance of a frequency among N samples, f (1 - f) / (N - 1), is taken out, so
        that it is unbiased. ``<answer>``: mean frequency.
    """
    frequencies, truth = values["frequencies"], values["truth"]
    found, true = 1 - frequencies[..., 0], 1 - truth[..., 0]
    square = (found - true) ** 2 - found * (1 - found) / (number - 1)
    weight, mean_found, mean_true = reliability(values)
    result = {
        "ged": values["ged"].mean(-1),
        "total_variation": (frequencies - truth).abs().sum(-1).mean(-1) / 2,
        "presence_error": (weight * (mean_found - mean_true).abs()).sum(-1),
        "presence_brier": square.mean(-1),
    }
    return result | {name: frequencies[..., i].mean(-1) for i, name in enumerate(ANSWERS)}


def reliability(values: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Per bin of the true presence the share of the images, and the means of found and true presence: (..., BINS)."""
    found, true = 1 - values["frequencies"][..., 0], 1 - values["truth"][..., 0]
    which = ((true - 0.1) / 0.9 * BINS).long().clamp(0, BINS - 1)
    inside = torch.nn.functional.one_hot(which, BINS).to(found)  # (..., B, BINS)
    count = inside.sum(-2)
    divisor = count.clamp(min=1)
    return (
        count / inside.shape[-2],
        (inside * found[..., None]).sum(-2) / divisor,
        (inside * true[..., None]).sum(-2) / divisor,
    )


def standard_errors(values: dict[str, Tensor], number: int, repeats: int = 200, seed: int = 0) -> dict[str, Tensor]:
    """Standard errors of :func:`figures` over the test images, by drawing the images again (bootstrap)."""
    generator = torch.Generator().manual_seed(seed)
    count = len(values["ged"])
    again = torch.randint(count, (repeats, count), generator=generator).to(values["ged"].device)
    drawn = figures({name: value[again] for name, value in values.items()}, number)
    return {name: value.std(0) for name, value in drawn.items()}
