"""The pictures of one inspection, and a sentence for each that cannot be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import PreparedDataset
from ..diagnostics import FrozenAxes, LatentSummary, interpolate_axes, latent_curves, pearson
from ..runs import Run
from ..tables import read_table
from ..visualize import (
    ScatterPanel,
    correlation_panels,
    freezing_curves,
    interpolation_grid,
    latent_axes,
    moments_panel,
    training_curves,
)
from .findings import Cases, Summary, plane_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Pictures"]

_VALUES = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
_LABELS = {
    "effective_rank": "effective rank of the prior",
    "output_entropy": "output entropy (nats per pixel)",
    "rater_entropy": "rater entropy (nats per pixel)",
}


class Pictures:
    """Draws them one after the other.

    Args:
        training: what was trained.
        network: trained, in evaluation.
        dataset: where the cases are from.
        section: its part.
        cases: P of them.
        shown: positions among them that are drawn.
        summary: of their samples.
        latents: of their priors; None where the network has no single prior.
        frozen: of some of them; None as before.

    Attributes:
        correlations: name of a pair -> Pearson's r, its p-value, the number of pairs.
        notes: sentences about what could not be drawn.
        missing: whether something that this network has is among them.
    """

    def __init__(
        self,
        training: Run,
        network: nn.Module,
        dataset: PreparedDataset,
        section: str,
        cases: Cases,
        shown: list[int],
        summary: Summary,
        latents: LatentSummary | None,
        frozen: FrozenAxes | None,
    ) -> None:
        self.training = training
        self.network = network
        self.cases = cases
        self.shown = shown
        self.summary = summary
        self.latents = latents
        self.frozen = frozen
        self.missing = False
        self.notes: list[str] = []
        if dataset.info.get("sha256") != training.dataset.get("sha256"):
            self.notes.append(f"{dataset.root} is another data set than the one of the training, or was made anew.")
        variant = training.settings.get("variant")
        name = f"{training.bundle.get('folder') or 'model'}{f' ({variant})' if variant else ''}"
        self._name = name
        self.title = f"{name}: {dataset.info['name']}, {section}"
        self.source = " The images are simulated." if "simulated" in str(dataset.info.get("source")) else ""
        quantities = {"output_entropy": summary.output_entropy, "rater_entropy": summary.rater_entropy}
        if latents is not None:
            quantities = {"effective_rank": latents.effective_rank, **quantities}
        self._quantities = quantities
        names = list(quantities)
        self._pairs = [(one, other) for number, one in enumerate(names) for other in names[number + 1 :]]
        self.correlations = {
            f"{one}_{other}": pearson(quantities[one], quantities[other])._asdict() for one, other in self._pairs
        }

    def draw(self) -> Iterator[tuple[str, Figure]]:
        """(file name, figure), one after the other."""
        yield "samples.png", self._samples()
        yield "correlations.png", self._correlations()
        if self.latents is not None and self.frozen is not None:
            yield "latent_per_image.png", self._latents(self.latents)
            yield "interpolation.png", self._interpolation(self.latents)
            if torch.isfinite(self.frozen.smallest_first).all(1).any():
                yield "freezing.png", self._freezing(self.frozen)
            else:
                self._lacks("no case has a rater: freezing.png is not drawn.")
        else:
            self.notes.append(
                f"the network ({type(self.network).__name__}) has no single prior: latent_per_image.png, "
                "interpolation.png, freezing.png and what concerns the effective rank do not apply."
            )
        figure = self._training()
        if figure is not None:
            yield "training.png", figure

    def lines(self) -> Iterator[str]:
        """The numbers in words."""
        if self.latents is not None and self.frozen is not None:
            dimensions = self.latents.mean.shape[1]
            yield (
                f"effective rank {float(self.latents.effective_rank.mean()):.3g} of {dimensions}, Gini index "
                f"{float(self.latents.gini_index.mean()):.3g} ({len(self.cases.rows)} images)"
            )
            curve = self.frozen.smallest_first.nanmean(0)
            yield (
                f"EWD (1 - IoU) {float(curve[0]):.3g} with no axis frozen, {float(curve[-1]):.3g} with all of them "
                f"({len(self.frozen.smallest_first)} images)"
            )
        for one, other in self._pairs:
            found = self.correlations[f"{one}_{other}"]
            told = f"{found['r']:.2f}"
            if not np.isfinite(found["r"]):
                told = "one of them is the same in all" if found["pairs"] > 1 else "too few images"
            yield f"Pearson's r of {one.replace('_', ' ')} and {other.replace('_', ' ')}: {told}"

    def _lacks(self, sentence: str) -> None:
        self.notes.append(sentence)
        self.missing = True

    def _samples(self) -> Figure:
        shown = self.summary.shown
        return moments_panel(
            *(np.stack([getattr(one, name) for one in shown]) for name in ("image", "labels", "mean", "std")),
            rater_valid=np.stack([one.rater_valid for one in shown]),
            names=[one.name for one in shown],
            title=self.title,
            caption=f"Probability of the foreground.{self.source}",
        )

    def _correlations(self) -> Figure:
        panels = [
            ScatterPanel(
                _LABELS[one],
                _LABELS[other],
                self._quantities[one],
                self._quantities[other],
                self.correlations[f"{one}_{other}"]["r"],
            )
            for one, other in self._pairs
        ]
        caption = f"A point per image ({len(self.cases.rows)}); the line is the least-squares fit.{self.source}"
        return correlation_panels(panels, title=self.title, caption=caption)

    def _latents(self, latents: LatentSummary) -> Figure:
        deviations = latents.variance.sqrt()
        return latent_axes(
            np.stack([one.image for one in self.summary.shown]),
            latents.mean[self.shown],
            deviations[self.shown],
            names=[one.name for one in self.summary.shown],
            all_mean=latents.mean,
            all_std=deviations,
            title=self.title,
            caption=f"Prior p(z | x) of an image: mean and standard deviation of each latent dimension.{self.source}",
        )

    def _interpolation(self, latents: LatentSummary) -> Figure:
        doubt = self.summary.rater_entropy[self.shown].nan_to_num(nan=-1.0)
        position = self.shown[int(doubt.argmax())]  # where the raters disagree most
        logits = interpolate_axes(self.network, self.cases.images[position : position + 1], _VALUES)[0]
        probability = _foreground(logits).cpu()  # (A, V, *S)
        parts: list[Tensor] = [self.cases.images[position], probability, self.cases.labels[position]]
        depth = plane_of(self.cases.labels[position])
        image, maps, labels = (part if depth is None else part[..., depth] for part in parts)
        own = bool(torch.equal(latents.axes[position], torch.eye(latents.axes.shape[-1])))
        axes = "The prior's own axes" if own else "Principal axes of the prior's covariance, the largest first"
        return interpolation_grid(
            image,
            maps,
            _VALUES,
            latents.scales[position],
            labels=labels,
            rater_valid=self.cases.rater_valid[position],
            title=f"{self.title}: {self.cases.rows[position]['case']}",
            caption=f"{axes}; one moves by multiples of its standard deviation σ, the others stay at their mean."
            f"{self.source}",
        )

    def _freezing(self, frozen: FrozenAxes) -> Figure:
        caption = (
            f"Mean over {len(frozen.smallest_first)} images; the same draws for every number of axes. Band: standard "
            f"error of the difference to nothing frozen.{self.source}"
        )
        return freezing_curves(*(part.cpu() for part in frozen), title=self.title, caption=caption)

    def _training(self) -> Figure | None:
        folder = self.training.output_dir
        series: dict[str, Any] = {}
        if (folder / "latents.csv").is_file():
            series = dict(latent_curves(read_table(folder / "latents.csv")))
        elif (folder / "training.csv").is_file():
            kept = {"val_effective_rank": "effective_rank", "val_gini_index": "gini_index"}
            rows = [
                {"epoch": row["epoch"], **{new: row[old] for old, new in kept.items() if old in row}}
                for row in read_table(folder / "training.csv")
            ]
            series = dict(latent_curves(rows))
        if series:
            return training_curves(series, title=f"{self._name}: the prior on the validation images")
        if self.latents is not None:
            self._lacks(
                f"{folder} has no latents.csv or training.csv with an effective rank: training.png is not drawn."
            )
        return None


def _foreground(logits: Tensor) -> Tensor:
    """(..., K, *S) of A x V decodings -> (A, V, *S)."""
    return logits.sigmoid()[:, :, 0] if logits.shape[2] == 1 else 1.0 - logits.softmax(2)[:, :, 0]
