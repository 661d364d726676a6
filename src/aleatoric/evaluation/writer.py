"""The handler that turns a run of the evaluator into files."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.networks.utils import eval_mode
from monai.utils.enums import CommonKeys
from torch import Tensor, nn

from ..data.loading.loader import DeviceLoader
from ..data.prepared.reading import PreparedDataset
from ..distributions import base_of, principal_scales
from ..files import write_atomically
from ..metrics import MultiRaterMetrics
from ..metrics.functional import effective_rank, gini_index
from ..statistics import METHOD, few_patients, patient_bootstrap
from .curves import data_set_figures, risk_resamples
from .keeping import CaseKeeper, SampleFile, best_to_worst
from .pictures import draw_cases, split_raters
from .record import case_table, result_of, source_of

__all__ = ["EvaluationWriter"]

_LEVEL, _SEED = 0.95, 0  # of the intervals; one seed for all evaluations, whose patients are drawn alike then

logger = logging.getLogger(__name__)


class EvaluationWriter:
    """Handler that writes the result of a run of ``SupervisedEvaluator`` with ``decollate=False``.

    metrics.json (what was evaluated, every figure with its definition, its mean, its interval over patients, curves),
    per_case.csv, cases.npz (images, raters and samples of some cases, from the best to the worst; latents of all) and
    pictures.png. Each is there whole or not at all, and metrics.json is the last. Two empty masks have distance 0
    throughout.

    Args:
        output_dir: where they go.
        dataset: what is evaluated.
        loader: the batches' loader, in the data set's order.
        metrics: the metric that the evaluator accumulates; a row of per_case.csv is a case of it.
        network: if it has ``prior_distribution``, effective rank and Gini index of the prior are reported too.
        num_samples, seed, temperature: of the inferer, for the record.
        pictures: how many cases, evenly spread over the section, to draw; 0 draws none.
        bundle_root, ckpt_path, variant: of the model, for the record; ``ckpt_path`` None: untrained.
        fold: of the data set, for the record.
        kept_cases: how many go to cases.npz: half by rank of ``ged``, the best, the worst and median ones and some
            between, the others evenly spread over the section, the same for every model; 0: no file.
        save_samples: write the masks of all samples, samples.npy (n, N, *S) uint8.
        resamples: of the bootstrap over patients; 0: no intervals.
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
        *,
        bundle_root: str | None = None,
        ckpt_path: str | None = None,
        variant: str | None = None,
        fold: int = 0,
        kept_cases: int = 40,
        save_samples: bool = False,
        resamples: int = 10_000,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.dataset = dataset
        self.loader = loader
        self.metrics = metrics
        self.network = network
        self.options = {"num_samples": num_samples, "seed": seed, "temperature": temperature}
        self.pictures = pictures
        self.bundle_root = None if bundle_root is None else Path(bundle_root)
        self.checkpoint = None if ckpt_path is None else Path(ckpt_path)
        self.variant = variant
        self.fold = fold
        self.kept_cases = kept_cases
        self.save_samples = save_samples
        self.resamples = resamples
        self._samples: SampleFile | None = None
        self._reset()

    def _reset(self) -> None:
        self._kept = CaseKeeper()
        self._latents: list[tuple[Tensor, Tensor]] = []
        if self._samples is not None:
            self._samples.discard()
        path = self.output_dir / "samples.npy"
        self._samples = SampleFile(path, len(self.loader.indices)) if self.save_samples else None

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator, behind its metrics."""
        engine.add_event_handler(Events.STARTED, lambda _: self._reset())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._give_up)

    def _give_up(self, engine: Engine, error: BaseException) -> None:
        if self._samples is not None:
            self._samples.discard()
        raise error

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        image, label, answer = output[CommonKeys.IMAGE], output[CommonKeys.LABEL], output[CommonKeys.PRED]
        masks = getattr(answer, "masks", answer)
        network: Any = self.network
        if hasattr(network, "prior_distribution"):
            # The evaluator sets the network to evaluation only while it infers, and this runs behind it.
            with torch.no_grad(), eval_mode(network):
                prior = network.prior_distribution(image)
                self._latents.append((base_of(prior).mean, principal_scales(prior)))  # (B, d) each
        self._kept.add(image, label, masks)
        if self._samples is not None:
            self._samples.add(masks)

    def _per_case(self) -> dict[str, np.ndarray]:
        figures = {name: value.cpu().numpy() for name, value in self.metrics.cases().items()}
        if self._latents:
            scale = torch.cat([scale for _, scale in self._latents]).float()
            figures["effective_rank"] = effective_rank(scale).cpu().numpy()
            figures["gini_index"] = gini_index(scale).cpu().numpy()
        return figures

    def _write(self, engine: Engine) -> None:
        figures = self._per_case()
        rows = [self.dataset.cases[i] for i in self.loader.indices]
        patients = [row["patient"] for row in rows]
        whole = data_set_figures(self.metrics, self.dataset.info["classes"], patients, self.resamples, _LEVEL, _SEED)
        means = {name: float(np.nanmean(values)) for name, values in figures.items()} | whole.metrics
        engine.state.metrics.update(means)
        self._draw()
        self._keep(figures["ged"])
        if self._samples is not None:
            self._samples.finish()
        write_atomically(self.output_dir / "per_case.csv", case_table(rows, figures))
        warning = few_patients(patients) if self.resamples else None
        result = result_of(
            source_of(self.output_dir, self.bundle_root, self.checkpoint, self.variant),
            self.dataset,
            self.loader.section,
            self.fold,
            rows,
            self.options
            | {
                "spacing": None if self.metrics.spacing is None else [float(step) for step in self.metrics.spacing],
                "device": str(self.loader.device),
                "bf16": bool(getattr(self.network, "bf16", False)),
            },
            figures,
            means,
            self._intervals(figures, patients) | whole.intervals,
            {
                "method": METHOD,
                "of_calibration_errors": "reflected at the estimate, for resamples of a distance lie above it",
                "level": _LEVEL,
                "resamples": self.resamples,
                "resamples_of_aurc": risk_resamples(self.resamples),
                "seed": _SEED,
                "unit": "patient",
            },
            whole.curves,
            [] if warning is None else [warning],
        )
        # last: where it is, the evaluation is complete
        write_atomically(self.output_dir / "metrics.json", result)
        logger.info(
            "wrote metrics.json, per_case.csv and what is shown of cases to %s; aleatoric report %s makes a page of it",
            self.output_dir,
            self.output_dir,
        )
        if warning is not None:
            logger.warning("%s", warning)

    def _intervals(self, figures: dict[str, np.ndarray], patients: list[str]) -> dict[str, tuple[float, float]]:
        if not self.resamples:
            return {}
        values = np.stack(list(figures.values()), axis=1)
        low, high = patient_bootstrap(values, patients, self.resamples, _LEVEL, _SEED)
        return {name: (float(a), float(b)) for name, a, b in zip(figures, low, high)}

    def _draw(self) -> None:
        if not self.pictures:
            return
        count = len(self._kept)
        chosen = np.unique(np.linspace(0, count - 1, min(self.pictures, count)).astype(int))
        simulated = "simulated" in self.dataset.info["source"]
        draw_cases([self._kept.read(number) for number in chosen], self.output_dir / "pictures.png", simulated)

    def _keep(self, ged: np.ndarray) -> None:
        """cases.npz: what the report shows of single cases."""
        if not self.kept_cases:
            return
        arrays: dict[str, np.ndarray] = {}
        chosen = best_to_worst(ged, self.kept_cases)
        if len(chosen):
            images, labels, samples = (np.stack(parts) for parts in zip(*map(self._kept.read, chosen.tolist())))
            labels, rater_valid = split_raters(labels)
            arrays = {
                "position": chosen,
                "image": images[:, 0],
                "labels": labels,
                "rater_valid": rater_valid,
                "samples": samples,
            }
        for name, parts in zip(("latent_mean", "latent_scales"), zip(*self._latents)):
            arrays[name] = torch.cat(parts).float().cpu().numpy()
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        write_atomically(self.output_dir / "cases.npz", content.getvalue())
