"""What an evaluation leaves behind: metrics.json, per_case.csv and a picture, each with what is needed to judge it."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.networks.utils import eval_mode
from monai.transforms import MapTransform
from monai.utils.enums import CommonKeys
from torch import Tensor, nn

from .data.images import output_name
from .data.loading.loader import DeviceLoader
from .data.prepared.reading import PreparedDataset
from .distributions import principal_scales
from .files import write_atomically
from .metrics import MISSING, MultiRaterMetrics
from .metrics.definitions import DEFINITIONS, definition
from .metrics.functional import effective_rank, gini_index
from .runs import versions

__all__ = ["DEFINITIONS", "DrawSamplesd", "EvaluationWriter", "definition"]


class EvaluationWriter:
    """Handler that writes the result of a run of ``SupervisedEvaluator`` with ``decollate=False``.

    Two empty masks have distance 0 throughout.

    Args:
        output_dir: where metrics.json, per_case.csv and pictures.png go.
        dataset: what is evaluated.
        loader: the batches' loader, in the data set's order.
        metrics: the metric that the evaluator accumulates; a row of per_case.csv is a case of it.
        network: if it has ``prior_distribution``, effective rank and Gini index of the prior are reported too.
        num_samples, seed, temperature: of the inferer, for the record.
        pictures: how many cases, evenly spread over the section, to draw; 0 draws none.
    """

    def __init__(
        self,
        output_dir: str,
        dataset: PreparedDataset,
        loader: DeviceLoader,
        metrics: MultiRaterMetrics,
        network: nn.Module,
        num_samples: int,
        seed: int | None,
        temperature: float = 1.0,
        pictures: int = 8,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.dataset = dataset
        self.loader = loader
        self.metrics = metrics
        self.network = network
        self.record = {"num_samples": num_samples, "seed": seed, "temperature": temperature}
        count = len(loader.indices)
        self.chosen = set(np.linspace(0, count - 1, min(pictures, count)).astype(int).tolist())
        self._reset()

    def _reset(self) -> None:
        self._seen = 0
        self._scales: list[Tensor] = []
        self._drawn: list[tuple[Tensor, ...]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator, behind its metrics."""
        engine.state.key_metric_name = "ged"  # of the figures in the metric's dict the one that MONAI's logs name
        engine.add_event_handler(Events.STARTED, lambda _: self._reset())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        image, label, masks = output[CommonKeys.IMAGE], output[CommonKeys.LABEL], output[CommonKeys.PRED]
        network: Any = self.network
        if hasattr(network, "prior_distribution"):
            # The evaluator sets the network to evaluation only while it infers, and this runs behind it.
            with eval_mode(network):
                self._scales.append(principal_scales(network.prior_distribution(image)))  # (B, d)
        for position in range(image.shape[0]):
            if self._seen + position in self.chosen:
                self._drawn.append(_flat(image[position], label[position], masks[position]))
        self._seen += image.shape[0]

    def _per_case(self) -> dict[str, np.ndarray]:
        figures = {name: value.cpu().numpy() for name, value in self.metrics.cases().items()}
        if self._scales:
            scale = torch.cat(self._scales).float()
            figures["effective_rank"] = effective_rank(scale).cpu().numpy()
            figures["gini_index"] = gini_index(scale).cpu().numpy()
        return figures

    def _write(self, engine: Engine) -> None:
        figures = self._per_case()
        rows = [self.dataset.cases[i] for i in self.loader.indices]
        means = {name: float(np.nanmean(values)) for name, values in figures.items()}
        engine.state.metrics.update(means)
        info = self.dataset.info
        result = {
            "dataset": {"name": info["name"], "source": info["source"], "sha256": info["sha256"]},
            "section": self.loader.section,
            "split_hash": info["folds"]["split_hash"],
            "cases": len(rows),
            "patients": len({row["patient"] for row in rows}),
            **self.record,
            "conventions": "two empty masks have distance 0; a missing rater is left out; a case counts once",
            "definitions": {name: definition(name) for name in means},
            "metrics": means,
            "versions": versions(),
        }
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow([*rows[0], *figures])
        for number, row in enumerate(rows):
            writer.writerow([*row.values(), *(f"{values[number]:.6g}" for values in figures.values())])
        if self._drawn:
            self._draw(info)
        write_atomically(self.output_dir / "per_case.csv", table.getvalue())
        # last: where it is, the evaluation is complete
        write_atomically(self.output_dir / "metrics.json", json.dumps(result, indent=2) + "\n")
        logging.getLogger(__name__).info("wrote metrics.json, per_case.csv and pictures to %s", self.output_dir)

    def _draw(self, info: dict[str, Any]) -> None:
        from .visualize import sample_panel, save_figure

        images, labels, masks = (torch.stack(parts).numpy() for parts in zip(*self._drawn))
        rater_valid = ~(labels == MISSING).all(axis=(2, 3))
        labels = np.where(rater_valid[:, :, None, None], labels, 0)
        figure = sample_panel(images, labels, masks, rater_valid=rater_valid, simulated="simulated" in info["source"])
        save_figure(figure, self.output_dir / "pictures.png")


def _flat(image: Tensor, label: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
    """What is drawn of a case (C, *S), (R, *S), (N, *S): itself, or of a volume the slice that shows the most."""
    parts = image, label, masks
    if image.dim() == 4:
        drawn = torch.cat([(label > 0) & (label != MISSING), masks > 0]).flatten(0, 2).sum(0)  # (slices,)
        parts = tuple(part.select(-1, int(drawn.argmax())) for part in parts)  # type: ignore[assignment]
    return tuple(part.cpu() for part in parts)


class DrawSamplesd(MapTransform):
    """Write a picture of an image's samples: <name>_overview.png, of a volume the slices with the most doubt.

    Args:
        keys: the image (C, *S), as the network saw it.
        samples_key: the samples' masks (N, *S).
        output_dir: where the picture goes.
        slices: rows of the picture, for a volume.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        samples_key: str = "pred_samples",
        output_dir: str = "eval",
        slices: int = 4,
    ) -> None:
        super().__init__(keys)
        self.samples_key = samples_key
        self.output_dir = Path(output_dir)
        self.slices = slices

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        from .visualize import sample_panel, save_figure

        result = dict(data)
        for key in self.key_iterator(result):
            image, masks = (np.asarray(torch.as_tensor(result[k]).cpu()) for k in (key, self.samples_key))
            meta = result[key].meta if isinstance(result[key], MetaTensor) else {}
            name = output_name(meta, None)["subject"]
            names = None
            if image.ndim == 4:
                doubt = masks.std(0).sum((0, 1))  # (D,)
                rows = np.sort(np.argsort(-doubt, kind="stable")[: self.slices])
                heights = [(meta["affine"] @ torch.tensor([0, 0, k, 1.0], dtype=torch.float64))[2].item() for k in rows]
                names = [f"z = {height:g} mm" for height in heights]
                image, masks = np.moveaxis(image[..., rows], -1, 0), np.moveaxis(masks[..., rows], -1, 0)
            else:
                image, masks = image[None], masks[None]
            nobody = np.zeros((len(masks), 0, *masks.shape[2:]), np.uint8)
            figure = sample_panel(image, nobody, masks, names=names, title=name)
            save_figure(figure, self.output_dir / f"{name}_overview.png")
        return result
