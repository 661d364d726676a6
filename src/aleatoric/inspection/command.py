"""``aleatoric inspect``: what a trained network's latent space holds and changes, in one folder of pictures."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data import PreparedDataset, intensity_rule, load_dataset, network_size
from ..data.prepared.reading import SECTIONS
from ..diagnostics import FrozenAxes, LatentSummary, freeze_axes, latent_summary
from ..errors import InputError
from ..files import json_text, write_atomically
from ..runs import Run, read_run, versions
from ..visualize import save_figure
from .findings import Cases, Summary, evenly, read_cases, summarise_samples
from .pictures import Pictures
from .rebuild import load_weights, rebuild_network

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``aleatoric inspect``."""
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="a training's output folder, or a bundle's folder"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: inspect in the training's output folder")
    parser.add_argument(
        "--dataset_dir", "--dataset-dir", type=Path, metavar="DIR", help="default: that of the training"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: model.pt of the training")
    parser.add_argument("--section", choices=SECTIONS, default="testing", help="(default: testing)")
    parser.add_argument("--images", type=int, default=8, metavar="N", help="to draw (default: 8)")
    parser.add_argument(
        "--cases", type=int, default=256, metavar="N", help="that the numbers are from; 0: all (default: 256)"
    )
    parser.add_argument(
        "--freezing-cases", type=int, default=32, metavar="N", help="of them to freeze axes in; 0: all (default: 32)"
    )
    parser.add_argument("--num-samples", type=int, default=16, metavar="N", help="per image (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    parser.add_argument("--device", help="cpu, cuda:0 ...; default: a GPU if there is one")
    parser.add_argument(
        "--config-file",
        nargs="+",
        default=[],
        metavar="OVERLAY",
        help="overlays of the training that change the network",
    )


def run(args: argparse.Namespace) -> int:
    """``aleatoric inspect``: rebuild, measure, draw; print the numbers and where the pictures are."""
    _check(args)
    training = read_run(args.run_dir)
    device = _device(args.device)
    network = rebuild_network(training, args.config_file)
    dataset = _dataset(args.dataset_dir or training.dataset_dir, training)
    checkpoint = args.checkpoint or training.ckpt_dir / "model.pt"
    load_weights(network, training, checkpoint, intensity_rule(dataset.info))
    network = network.to(device)
    out = args.out if args.out is not None else training.output_dir / "inspect"
    try:
        return _inspect(args, training, network, dataset, checkpoint, out)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror or error}), a writable folder with space expected; name another "
            "one with --out."
        ) from error


def _check(args: argparse.Namespace) -> None:
    for name, least in (("images", 1), ("num_samples", 1), ("cases", 0), ("freezing_cases", 0), ("seed", 0)):
        if getattr(args, name) < least:
            option = "--" + name.replace("_", "-")
            raise InputError(f"found {option} {getattr(args, name)}, expected {least} or more; correct it.")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise InputError(f"found the file {args.out}, expected a folder; name another one with --out.")


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the device {name} cannot be used ({reason}); take cpu or one that is there.") from error
    return device


def _dataset(folder: Path, training: Run) -> PreparedDataset:
    if not folder.exists():
        raise InputError(f"the data set {folder} is gone; name its folder with --dataset_dir.")
    size = network_size(folder)
    for what, found in size._asdict().items():
        expected = training.settings.get(what, found)
        if found != expected:
            raise InputError(
                f"{folder} gives {found} {what}, the network has {expected}; name the data set of the training, or one "
                "like it, with --dataset_dir."
            )
    return load_dataset(folder, spatial_dims=training.settings.get("spatial_dims"))


def _inspect(
    args: argparse.Namespace, training: Run, network: nn.Module, dataset: PreparedDataset, checkpoint: Path, out: Path
) -> int:
    if len(dataset.info["patch_size"]) != 2:
        raise InputError(
            f"{dataset.root} holds volumes, and these pictures are of 2D images; see pictures.png of the evaluation."
        )
    out.mkdir(parents=True, exist_ok=True)
    cases = read_cases(dataset, args.section, training.fold, args.cases)
    shown = evenly(len(cases.rows), args.images)
    classes = len(dataset.info["classes"])
    with tqdm(total=len(cases.rows), desc="samples", unit="image", dynamic_ncols=True) as bar:
        summary = summarise_samples(network, cases, classes, args.num_samples, args.seed, shown, progress=bar.update)
    latents, frozen, subset = None, None, evenly(len(cases.rows), args.freezing_cases)
    if hasattr(network, "prior_distribution"):
        latents = LatentSummary(*(part.cpu() for part in latent_summary(network, cases.images)))
        some = cases.some(subset)
        with tqdm(total=len(subset), desc="freezing", unit="image", dynamic_ncols=True) as bar:
            frozen = freeze_axes(
                network,
                some.images,
                some.labels,
                some.rater_valid,
                args.num_samples,
                args.seed,
                num_classes=classes,
                progress=bar.update,
            )
    pictures = Pictures(training, network, dataset, args.section, cases, shown, summary, latents, frozen)
    for name, figure in pictures.draw():
        save_figure(figure, out / name)
    write_atomically(out / "per_image.csv", _table(cases, summary, latents))
    record = {
        "run": {"output_dir": str(training.output_dir), "bundle": dict(training.bundle), "fold": training.fold},
        "settings": dict(training.settings),
        "checkpoint": str(checkpoint),
        "dataset": {key: dataset.info.get(key) for key in ("name", "source", "sha256")},
        "section": args.section,
        "images": len(cases.rows),
        "num_samples": args.num_samples,
        "seed": args.seed,
        **_figures(summary, latents, frozen),
        "correlations": pictures.correlations,
        "notes": pictures.notes,
        "versions": versions(),
    }
    write_atomically(out / "inspect.json", json_text(record))
    for line in (*pictures.lines(), *pictures.notes):
        print(line)
    print(f"\npictures, inspect.json and per_image.csv: {out}")
    return 3 if pictures.missing else 0


def _figures(summary: Summary, latents: LatentSummary | None, frozen: FrozenAxes | None) -> dict[str, Any]:
    """What inspect.json holds beside the record: means over the images, curves."""
    figures: dict[str, Any] = {
        "output_entropy": _mean(summary.output_entropy),
        "rater_entropy": _mean(summary.rater_entropy),
    }
    if latents is not None:
        figures |= {
            "effective_rank": _mean(latents.effective_rank),
            "gini_index": _mean(latents.gini_index),
            "prior_mean": latents.mean.mean(0).tolist(),
            "prior_variance": latents.variance.mean(0).tolist(),
            "prior_scales": latents.scales.mean(0).tolist(),
        }
    if frozen is not None:
        figures["freezing"] = {
            "images": len(frozen.smallest_first),
            "frozen_axes": list(range(frozen.smallest_first.shape[1])),
            **{f"ewd_{order}": curve.nanmean(0).tolist() for order, curve in frozen._asdict().items()},
        }
    return figures


def _mean(values: Tensor) -> float:
    return float(values.nanmean())


def _table(cases: Cases, summary: Summary, latents: LatentSummary | None) -> str:
    columns = {"output_entropy": summary.output_entropy, "rater_entropy": summary.rater_entropy}
    if latents is not None:
        columns |= {"effective_rank": latents.effective_rank, "gini_index": latents.gini_index}
        for name in ("mean", "variance", "scales"):
            part = getattr(latents, name)
            columns |= {f"{name.rstrip('s')}_{axis + 1}": part[:, axis] for axis in range(part.shape[1])}
    values = torch.stack([column.double() for column in columns.values()], dim=1).tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*cases.rows[0], *columns])
    writer.writerows([*row.values(), *(f"{value:.6g}" for value in line)] for row, line in zip(cases.rows, values))
    return text.getvalue()
