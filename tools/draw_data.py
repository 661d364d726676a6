"""The pictures of docs/data.md: each source, simulated (tools/simulated), prepared by its command, and drawn.

    python tools/draw_data.py [--out docs/pictures]

No image of the real sets is in them: QUBIQ's may not be passed on, and the repository carries no patient's image.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from aleatoric.cli import main as command
from aleatoric.data import load_dataset
from aleatoric.visualize import patch_sheet, save_figure
from simulated import brats, datalist, kohl, lidc_pickle, qubiq

TASKS = ("brain-growth", "brain-tumor-1", "kidney", "prostate-1", "pancreas", "pancreatic-lesion")
CAPTION = (
    "Simulated: an image of the true sizes and values, not of a patient. Left without, right with the raters' contours."
)


def prepared(source: str, raw: Path, out: Path, *words: str) -> Path:
    if command(["prepare", source, str(raw), str(out), "--workers", "1", *words]) not in (0, 3):
        raise SystemExit(f"prepare {source} failed")
    return out


def draw(folders: dict[str, Path], count: int, path: Path, window: tuple[float, float] = (0.0, 1.0)) -> None:
    """``count`` patches of each prepared set, those in the middle of it; ``window``: what is black and what white."""
    images, labels, valid, names = [], [], [], []
    for name, folder in folders.items():
        dataset = load_dataset(folder)
        low, high = dataset.intensity_window
        for position in np.linspace(0, len(dataset) - 1, count + 2).astype(int)[1:-1]:
            images.append((np.asarray(dataset.images[position], dtype=np.float32) - low) / (high - low))
            labels.append(np.asarray(dataset.labels[position]))
            valid.append(dataset.rater_valid[position])
            names.append(
                f"{name}, {dataset.cases[position]['case']}" if len(folders) > 1 else dataset.cases[position]["case"]
            )
    write(patch_sheet(images, labels, valid, names=names, columns=3, intensity_window=window, caption=CAPTION), path)


def write(figure: object, path: Path) -> None:
    """As JPEG: a tenth of the PNG."""
    temporary = path.with_suffix(".png")
    save_figure(figure, temporary, dpi=100)  # type: ignore[arg-type]
    Image.open(temporary).convert("RGB").save(path, quality=88, optimize=True)
    temporary.unlink()
    print(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = qubiq.write(folder / "qubiq", 4)
        tasks = {task: prepared("qubiq", tree, folder / task, "--task", task) for task in TASKS}
        draw(tasks, 1, out / "qubiq.jpg")
        series = ["--dicom", "--patients", "3", "--margin", "0", "--workers", "1"]
        command(["prepare", "phantom", str(folder / "series"), *series])
        draw({"lidc": prepared("lidc", folder / "series", folder / "l")}, 3, out / "lidc.jpg")
        tree = brats.write(folder / "brats", 6, size=(160, 160, 100))
        draw({"brats": prepared("brats", tree, folder / "b")}, 3, out / "brats.jpg", window=(0.3, 0.7))
        draw({"kohl": prepared("kohl", kohl.write(folder / "kohl", 6), folder / "k")}, 3, out / "kohl.jpg")
        file = lidc_pickle.write(folder / "pickle", 6)
        draw({"pickle": prepared("pickle", file, folder / "p")}, 3, out / "lidc_pickle.jpg")
        listing = datalist.write(folder / "own", 9, defects=("shifted mask", "flipped mask", "mask of another image"))
        command(["prepare", "datalist", str(listing), str(folder / "own_set"), "--dry-run", "--workers", "1"])
        sheet = folder / "own_set.dry-run.png"
        Image.open(sheet).convert("RGB").save(out / "datalist_dry_run.jpg", quality=85, optimize=True)
        print(out / "datalist_dry_run.jpg")
        shutil.rmtree(folder / "own_set", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
