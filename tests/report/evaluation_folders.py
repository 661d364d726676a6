"""Folders of evaluations as ``evaluating`` leaves them, of discs that raters and models draw; small and quick."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aleatoric.metrics.definitions import definition
from aleatoric.metrics.functional import effective_rank, gini_index, multi_rater_figures

BINS = 15
MORE = {
    "brier": "squared difference of predicted probability and raters' frequency, mean over pixels",
    "area_crps": "continuous ranked probability score of the samples' areas against the raters', pixels",
    "area_samples": "mean area of the samples, pixels",
    "area_samples_low": "5 % quantile of the samples' areas, pixels",
    "area_samples_high": "95 % quantile of the samples' areas, pixels",
    "area_raters": "mean area of the raters' masks, pixels",
    "presence_samples": "share of the samples that show something",
    "presence_raters": "share of the raters who drew something",
    "aurc": "area under the risk-coverage curve",
}


def discs(random: np.random.Generator, centre: np.ndarray, radius: np.ndarray, size: int) -> np.ndarray:
    """(..., H, W) uint8 of centres (..., 2) and radii (...); a radius below one draws nothing."""
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y - centre[..., :1, None], x - centre[..., 1:, None])
    return (distance < np.where(radius < 1, 0, radius)[..., None, None]).astype(np.uint8)


def write_evaluation(
    folder: Path,
    *,
    bundle: str = "punet_segmentation",
    variant: str | None = None,
    fold: int = 0,
    seed: int = 0,
    noise: float = 1.0,
    cases: int = 24,
    patients: int = 8,
    samples: int = 8,
    raters: int = 4,
    size: int = 32,
    latent_dim: int = 6,
    epochs: int = 12,
    kept: int = 6,
    missing: bool = False,
    change: Callable[[dict[str, Any]], Any] | None = None,
) -> Path:
    """Write metrics.json, per_case.csv, cases.npz, training.csv and latents.csv; return the folder.

    The cases and what the raters drew are the same in every call of one size. ``noise``: how far the samples' centres
    stray, in pixels: about 1 is as far as the raters'. ``latent_dim`` 0: a network without latent vector. ``missing``:
    the last rater is missing from every third case. ``change`` gets the record before it is written.
    """
    labels, valid, images, rows = _cases(cases, patients, raters, size, fold, missing)
    random = np.random.default_rng([seed, fold, *map(ord, bundle + str(variant))])
    centre, radius = _truth(cases, size)
    drawn = discs(
        random,
        centre[:, None] + random.normal(0, noise, (cases, samples, 2)),
        (radius[:, None] + random.normal(0, 0.8, (cases, samples))) * (random.random((cases, samples)) > 0.1),
        size,
    )
    mean = drawn.mean(1)  # (n, H, W)
    figures = {
        name: value.double().numpy()
        for name, value in multi_rater_figures(
            torch.from_numpy(drawn),
            torch.from_numpy(labels),
            torch.from_numpy(valid),
            mean_prediction=torch.from_numpy((mean > 0.5).astype(np.uint8)),
        ).items()
    }
    weight = valid / valid.sum(1, keepdims=True)  # (n, R)
    frequency = np.einsum("nr,nrhw->nhw", weight, labels)
    areas, drawn_areas = labels.sum((2, 3)), drawn.sum((2, 3))
    figures |= {
        "brier": ((mean - frequency) ** 2).mean((1, 2)),
        "area_crps": np.abs(drawn_areas.mean(1) - (weight * areas).sum(1)),
        "area_samples": drawn_areas.mean(1),
        "area_samples_low": np.quantile(drawn_areas, 0.05, axis=1),
        "area_samples_high": np.quantile(drawn_areas, 0.95, axis=1),
        "area_raters": (weight * areas).sum(1),
        "presence_samples": (drawn_areas > 0).mean(1),
        "presence_raters": (weight * (areas > 0)).sum(1),
    }
    scales = np.exp(random.normal(0, 0.4, (cases, latent_dim))).astype(np.float32)
    if latent_dim:
        figures["effective_rank"] = effective_rank(torch.from_numpy(scales)).double().numpy()
        figures["gini_index"] = gini_index(torch.from_numpy(scales)).double().numpy()

    curves = _curves(mean, frequency, drawn_areas, areas, valid, figures)
    means = {name: float(np.nanmean(value)) for name, value in figures.items()}
    means["aurc"] = float(np.mean(curves["risk_coverage"]["risk"]))
    patient = np.array([row["patient"] for row in rows])
    record: dict[str, Any] = {
        "format_version": 2,
        "model": {
            "bundle": bundle,
            "version": "0.1.0",
            "variant": variant,
            "checkpoint": "model.pt",
            "checkpoint_sha256": f"{seed:064x}",
        },
        "training": {"fold": fold, "seed": seed},
        "dataset": {
            "name": "discs",
            "source": "simulated discs",
            "sha256": {"images.npy": "a1" * 32, "labels.npy": "b2" * 32},
            "classes": ["background", "disc"],
            "patch_size": [size, size],
        },
        "section": "testing",
        "fold": fold,
        "split_hash": "c3" * 8,
        "cases": cases,
        "patients": len(set(patient)),
        "num_samples": samples,
        "seed": 0,
        "temperature": 1.0,
        "conventions": "two empty masks have distance 0; a missing rater is left out; a case counts once",
        "definitions": {name: definition(name) or MORE.get(name, name) for name in means},
        "metrics": means,
        "intervals": {name: _interval(value, patient) for name, value in figures.items()},
        "bootstrap": {"method": "percentiles", "level": 0.95, "resamples": 200, "seed": 0, "unit": "patient"},
        "curves": curves,
        "versions": {"aleatoric": "0.1.0", "torch": "2.0", "monai": "1.5", "numpy": "2.0", "python": "3.11"},
        "warnings": [],
    }
    if change is not None:
        change(record)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "per_case.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*rows[0], *figures])
        for number, row in enumerate(rows):
            writer.writerow([*row.values(), *(f"{value[number]:.6g}" for value in figures.values())])
    (folder / "metrics.json").write_text(json.dumps(_plain(record), indent=2), encoding="utf-8")
    if kept:
        rank = np.argsort(figures["ged"], kind="stable")[np.linspace(0, cases - 1, kept).astype(int)]
        latents = {"latent_mean": random.normal(0, 1, scales.shape).astype(np.float32), "latent_scales": scales}
        np.savez_compressed(
            folder / "cases.npz",
            position=rank,
            image=images[rank],
            labels=labels[rank],
            rater_valid=valid[rank],
            samples=drawn[rank],
            **(latents if latent_dim else {}),
        )
    if epochs:
        _write_course(folder, random, epochs, latent_dim)
    return folder


def _truth(cases: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    return size / 2 + random.uniform(-4, 4, (cases, 2)), random.uniform(4, 9, cases)


def _cases(
    cases: int, patients: int, raters: int, size: int, fold: int, missing: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, str]]]:
    """labels (n, R, H, W), rater_valid (n, R), images (n, H, W) uint8, and the rows of cases.csv."""
    random = np.random.default_rng(8)
    centre, radius = _truth(cases, size)
    radii = radius[:, None] + random.normal(0, 0.8, (cases, raters))
    radii[random.random((cases, raters)) < 0.15] = 0
    labels = discs(random, centre[:, None] + random.normal(0, 1.0, (cases, raters, 2)), radii, size)
    valid = np.ones((cases, raters), bool)
    if missing:
        valid[::3, -1] = False
    images = np.clip(80 + 90 * labels.mean(1) + random.normal(0, 10, (cases, size, size)), 0, 255).astype(np.uint8)
    rows = [
        {"case": f"p{i % patients:02d}_n{i:03d}", "patient": f"p{i % patients:02d}", "slice": str(i), "fold": "test"}
        for i in range(cases)
    ]
    return labels, valid, images, rows


def _interval(values: np.ndarray, patient: np.ndarray) -> list[float]:
    random = np.random.default_rng(0)
    names = np.unique(patient)
    sums = np.array([np.nansum(values[patient == name]) for name in names])
    counts = np.array([np.isfinite(values[patient == name]).sum() for name in names])
    chosen = random.integers(0, len(names), (200, len(names)))
    return np.quantile(sums[chosen].sum(1) / counts[chosen].sum(1), [0.025, 0.975]).tolist()


def _bins(predicted: np.ndarray, observed: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    """Counts, mean prediction and mean observation in each bin, NaN where nothing is."""
    which = np.minimum((predicted.ravel() * BINS).astype(int), BINS - 1)
    count = np.bincount(which, minlength=BINS).astype(float)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(which, part.ravel(), BINS) / count for part in (predicted, observed)]
    return count.tolist(), means[0].tolist(), means[1].tolist()


def _curves(
    mean: np.ndarray,
    frequency: np.ndarray,
    drawn_areas: np.ndarray,
    areas: np.ndarray,
    valid: np.ndarray,
    figures: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    levels = np.linspace(0.1, 0.9, 9)
    coverage = []
    for level in levels:
        low, high = np.quantile(drawn_areas, [0.5 - level / 2, 0.5 + level / 2], axis=1)
        coverage.append(((areas >= low[:, None]) & (areas <= high[:, None]))[valid].mean())
    pixels, probability, rate = _bins(mean, frequency)
    number, samples, raters = _bins(figures["presence_samples"], figures["presence_raters"])
    risk, doubt = figures["ged"], figures["diversity"]
    share = np.linspace(0, 1, len(risk) + 1)
    kept = np.arange(1, len(risk) + 1)

    def left(order: np.ndarray) -> list[float]:
        """Mean risk over all cases when the first of ``order`` were read again and have none."""
        return ((risk.sum() - np.concatenate([[0], np.cumsum(risk[order])])) / len(risk)).tolist()

    return {
        "reliability": {"disc": {"pixels": pixels, "probability": probability, "frequency": rate}},
        "area_coverage": {"level": levels.tolist(), "coverage": coverage},
        "presence": {"forecasts": number, "samples": samples, "raters": raters},
        "risk_coverage": {
            "coverage": (kept / len(risk)).tolist(),
            "risk": (np.cumsum(risk[np.argsort(doubt)]) / kept).tolist(),
            "oracle": (np.cumsum(np.sort(risk)) / kept).tolist(),
        },
        "second_read": {
            "share": share.tolist(),
            "risk": left(np.argsort(-doubt)),
            "random": ((1 - share) * risk.mean()).tolist(),
            "oracle": left(np.argsort(-risk)),
        },
    }


def _write_course(folder: Path, random: np.random.Generator, epochs: int, latent_dim: int) -> None:
    with open(folder / "training.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", "train_kl", "train_loss", "val_ged", "val_loss"])
        for epoch in range(1, epochs + 1):
            loss = 2 * np.exp(-epoch / 4) + 0.3 + 0.02 * random.random()
            validated = [f"{loss / 3:.6g}", f"{loss * 1.1:.6g}"] if epoch % 2 == 0 else ["", ""]
            writer.writerow([epoch, f"{0.1 + loss / 9:.6g}", f"{loss:.6g}", *validated])
    if not latent_dim:
        return
    with open(folder / "latents.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", "effective_rank", "gini_index", *(f"scale_{i + 1}" for i in range(latent_dim))])
        for epoch in range(2, epochs + 1, 2):
            scales = np.exp(random.normal(0, epoch / 20, latent_dim))
            share = scales / scales.sum()
            rank = np.exp(-(share * np.log(share)).sum())
            writer.writerow([epoch, f"{rank:.6g}", f"{1 - rank / latent_dim:.6g}", *(f"{s:.6g}" for s in scales)])


def _plain(value: Any) -> Any:
    """For JSON: NaN is null."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and np.isnan(value) else value
