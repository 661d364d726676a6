"""An epoch of DeviceLoader, resident and streaming, against torch's DataLoader with two workers over the cases.

    python tools/bench_loader.py [--patches 1500] [--batch 32] [--repeats 3] [--device cpu]

All three shuffle; the arrays are in the page cache. First the batches alone, then with the batched augmentation, which
is work that reading can overlap with. Memory is what each needs beyond the data set that was opened: the highest
anonymous and shared memory of all its processes (Linux), each loader in a program of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aleatoric.data import DeviceLoader, PreparedCases, PreparedDataset, PreparedDatasetWriter, load_dataset
from aleatoric.transforms import BatchRandAffined
from timing import best_seconds, print_ratios

SIZE = (128, 128)
RATERS = 4
RESIDENT, STREAMING, ALTERNATIVE = "DeviceLoader, resident", "DeviceLoader, streaming", "DataLoader, 2 workers"


def write_dataset(folder: Path, patches: int) -> Path:
    """A prepared data set of noise."""
    writer = PreparedDatasetWriter(
        folder,
        name="noise",
        source="simulated noise",
        options={},
        channels=["ct"],
        classes=["background", "nodule"],
        raters=RATERS,
        intensity_window=(-1000, 400),
        patch_size=SIZE,
    )
    random = np.random.default_rng(0)
    for patient in range(10):
        count = patches // 10
        images = random.integers(-1000, 400, (count, 1, *SIZE), np.int16)
        labels = random.integers(0, 2, (count, RATERS, *SIZE), np.uint8)
        cases = [{"case": f"{patient}-{i}", "patient": str(patient), "slice": i} for i in range(count)]
        writer.write(str(patient), images, labels, np.ones((count, RATERS), bool), cases)
    return writer.finish()


def loaders(dataset: PreparedDataset, batch: int, device: str) -> dict[str, Callable[[], Iterable[dict[str, Any]]]]:
    """Name -> what makes the loader."""
    ours = partial(DeviceLoader, dataset, "training", batch, device, shuffle=True)
    return {
        RESIDENT: partial(ours, memory_budget=1000.0),
        STREAMING: partial(ours, memory_budget=0.0),
        ALTERNATIVE: lambda: torch.utils.data.DataLoader(
            PreparedCases(dataset, "training"),
            batch_size=batch,
            shuffle=True,
            num_workers=2,
            persistent_workers=True,
            pin_memory=device != "cpu",
        ),
    }


def epoch(loader: Iterable[dict[str, Any]], device: str, transform: Callable[[Any], Any] | None = None) -> None:
    """Take every batch, on the device."""
    for batch in loader:
        on_device = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        if transform is not None:
            transform(on_device)


def memory() -> int:
    """Bytes of anonymous and shared memory of this process and its children, each page counted once."""
    total = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        with contextlib.suppress(OSError):  # a worker that has just ended
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1]) * 1024
    return total


def print_peak(folder: Path, name: str, batch: int) -> None:
    """Print the peak of :func:`memory` in an epoch, less what was there before the loader was made."""
    make = loaders(load_dataset(folder), batch, "cpu")[name]
    before, peak, done = memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    epoch(make(), "cpu")
    done.set()
    watcher.join()
    print(f"{name:<{len(STREAMING)}}  {(peak - before) / 1e6:8.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", nargs=2, metavar=("FOLDER", "LOADER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        print_peak(Path(arguments.peak[0]), arguments.peak[1], arguments.batch)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_dataset(Path(scratch) / "noise", arguments.patches)
        dataset = load_dataset(folder)
        made = {name: make() for name, make in loaders(dataset, arguments.batch, arguments.device).items()}
        count = len(dataset.indices("training"))
        batches = -(-count // arguments.batch)
        augment = BatchRandAffined(prob=1.0, rotate_range=3.1416, padding_mode="reflection")
        augment.set_random_state(0)
        for what, transform in (("batches alone", None), ("batches with augmentation", augment)):
            times = best_seconds(
                {name: partial(epoch, loader, arguments.device, transform) for name, loader in made.items()},
                arguments.repeats,
                arguments.device,
            )
            print(f"{what}: {batches} of {arguments.batch} patches, {RATERS} masks, {SIZE[0]}x{SIZE[1]}")
            print_ratios(times, ALTERNATIVE)
            print("batches per second: " + " : ".join(f"{batches / times[name]:.1f}" for name in times))
        if Path("/proc/self/smaps_rollup").exists():
            print(f"peak memory in an epoch; the section is {section_size(dataset):.1f} MB")
            for name in made:
                command = [sys.executable, __file__, "--batch", str(arguments.batch), "--peak", str(folder), name]
                subprocess.run(command, check=True)


def section_size(dataset: PreparedDataset) -> float:
    """MB of the training section as stored."""
    share = len(dataset.indices("training")) / len(dataset)
    return share * (dataset.images.nbytes + dataset.labels.nbytes + dataset.rater_valid.nbytes) / 1e6


if __name__ == "__main__":
    main()
