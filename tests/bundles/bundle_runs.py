"""Bundles that run in this process from a copy of their folder, and a small prepared data set for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigWorkflow

from aleatoric.data import PreparedDatasetWriter

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = sorted(folder.name for folder in (REPOSITORY / "bundles").glob("*_segmentation"))


def dimensions(name: str) -> int:
    """2 or 3: of what the bundle's network sees."""
    metadata = json.loads((REPOSITORY / "bundles" / name / "configs" / "metadata.json").read_text())
    return len(metadata["network_data_format"]["inputs"]["image"]["spatial_shape"])


def names_in(config: str) -> list[str]:
    """The bundles that have a config (or an overlay) of this name."""
    return [name for name in NAMES if (REPOSITORY / "bundles" / name / "configs" / f"{config}.json").is_file()]


FLAT = [name for name in NAMES if dimensions(name) == 2]
# bundles whose prior is one density over a latent space, as against latent maps or none
LATENT = [
    name for name in NAMES if "LatentLogger" in (REPOSITORY / "bundles" / name / "configs" / "train.json").read_text()
]

# A network and a training of a second or two.
SMALL = {
    "filters": [4, 8],
    "num_convs": 1,
    "latent_dim": 3,
    "max_epochs": 2,
    "warmup_epochs": 1,
    "batch_size": 8,
    "num_samples": 4,
    "progress": False,
}
# What evaluation and inference must be given too.
SMALL_NETWORK = {key: SMALL[key] for key in ("filters", "num_convs", "latent_dim")}
# What a bundle of volumes needs besides to be as small.
SMALL_WINDOWS = {"output_size": 15, "windows_per_case": 1, "val_windows_per_case": 1}


def small(name: str) -> dict[str, Any]:
    """Settings of a small network and training of a bundle."""
    return SMALL if name in FLAT else SMALL | SMALL_WINDOWS


def write_prepared(
    folder: Path,
    patients: int = 12,
    size: int = 32,
    raters: int = 4,
    channels: int = 1,
    classes: int = 2,
    spatial_dims: int = 2,
    intensity_window: tuple[int, int] = (-1000, 400),
    **options: str,
) -> Path:
    """Discs (balls) in noise; each rater draws another radius, some draw nothing, some are missing.

    The first channel shows the disc, others are noise; with more classes a disc has shells. ``options`` go to
    dataset.json.
    """
    random = np.random.default_rng(0)
    shape = (size,) * spatial_dims
    writer = PreparedDatasetWriter(
        folder,
        name="discs",
        source="simulated discs",
        options={"size": size, **options},
        channels=["ct", "b", "c", "d"][:channels],
        classes=["background", "nodule", "core", "necrosis"][:classes],
        raters=raters,
        intensity_window=intensity_window,
        patch_size=shape,
    )
    voxels = np.indices(shape)
    for patient in range(patients):
        count = 2 + patient % 2
        images = random.normal(-700, 100, (count, channels, *shape))
        labels = np.zeros((count, raters, *shape), np.uint8)
        valid = np.ones((count, raters), bool)
        for i in range(count):
            center, radius = random.uniform(0.35, 0.65, spatial_dims) * size, random.uniform(0.1, 0.25) * size
            distance = np.linalg.norm(voxels - center.reshape(-1, *[1] * spatial_dims), axis=0)
            images[i, 0] = np.where(distance < radius, 0, -700) + random.normal(0, 100, shape)
            for rater in range(raters):
                drawn = radius * random.uniform(0.7, 1.3)
                for value in range(1, classes):
                    labels[i, rater][distance < drawn / value] = value
        labels[0, min(1, raters - 1)] *= raters == 1  # looked and drew nothing
        valid[-1, -1] = patient % 3 > 0 or raters == 1  # was not there
        labels[-1, -1] *= valid[-1, -1]
        cases = [{"case": f"p{patient:02d}_{i}", "patient": f"p{patient:02d}", "slice": i} for i in range(count)]
        writer.write(f"p{patient:02d}", images, labels, valid, cases)
    return writer.finish({"read": patients, "skipped": {}})


def copy_bundle(name: str, folder: Path) -> Path:
    """The bundle's folder as a user has it, without what earlier runs may have left in the repository."""
    target = folder / name
    shutil.copytree(
        REPOSITORY / "bundles" / name, target, ignore=shutil.ignore_patterns("*.pt", "*.ts", "eval", "data", "mlruns*")
    )
    return target


def workflow(
    bundle: Path, config: str | list[str], run: str = "run", kind: str = "train", **override
) -> ConfigWorkflow:
    """The workflow that ``python -m monai.bundle run RUN --config_file CONFIG`` makes; the working directory counts."""
    files = [config] if isinstance(config, str) else config
    return ConfigWorkflow(
        config_file=[str(bundle / "configs" / f"{name}.json") for name in files],
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        run_id=run,
        workflow_type=kind,
        **{"bundle_root": str(bundle), **override},
    )


def execute(bundle: Path, config: str | list[str], run: str = "run", **override) -> ConfigWorkflow:
    """Initialize, run and finalize; the workflow's parser then holds the objects that ran."""
    result = workflow(bundle, config, run, **override)
    result.initialize()
    result.run()
    result.finalize()
    return result


def train(bundle: Path, prepared: Path, overlays: tuple[str, ...] = (), **override) -> ConfigWorkflow:
    """A small training."""
    settings = {**small(bundle.name), "dataset_dir": str(prepared), **override}
    return execute(bundle, ["train", *overlays], "training", **settings)
