"""How long preparing takes and how much memory, for 100 and for 1,000 cases, against reading everything into lists.

    python tools/bench_prepare.py [--cases 1000] [--sources kohl qubiq datalist]

The cases are simulated. The alternative, for the datalist, is the short way: LoadImage of MONAI on every case of the
same list, a crop, np.stack, np.save. Memory is the peak resident set of a process that does all (--workers 1); what
grows between the two columns is what a larger set costs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCES = ("kohl", "qubiq", "datalist")


def simulate(source: str, root: Path, cases: int) -> list[str]:
    """Raw data below ``root``; returns the words of the command that reads them."""
    from simulated import datalist, kohl, qubiq

    if source == "kohl":
        kohl.write(root, cases, slices=1)
        return ["kohl", str(root)]
    if source == "qubiq":
        qubiq.write(root, cases, datasets=["brain-growth"], size=(160, 160))
        return ["qubiq", str(root), "--task", "brain-growth"]
    return ["datalist", str(datalist.write(root, cases, size=160))]


def with_lists(list_path: Path, out: Path) -> None:
    """The alternative: everything through MONAI's loader into lists."""
    import numpy as np
    from monai.data import load_decathlon_datalist
    from monai.transforms import LoadImage, ResizeWithPadOrCrop

    load, crop = LoadImage(image_only=True, ensure_channel_first=True), ResizeWithPadOrCrop((128, 128))
    images, labels = [], []
    for entry in load_decathlon_datalist(str(list_path), data_list_key="training"):
        images.append(np.asarray(crop(load(entry["image"]))))
        paths = entry["label"].values() if isinstance(entry["label"], dict) else entry["label"]
        masks = [np.asarray(crop(load(str(list_path.parent / path))))[0] for path in paths if path]
        labels.append(np.stack(masks + [np.zeros((128, 128))] * (len(entry["label"]) - len(masks))))
    np.save(out, {"images": np.stack(images), "labels": np.stack(labels)}, allow_pickle=True)  # type: ignore[arg-type]


def measure(words: list[str]) -> tuple[float, float]:
    """(seconds, peak MB) of this program with ``words``, in a process of its own."""
    result = subprocess.run([sys.executable, __file__, "--child", *words], capture_output=True, text=True)
    if result.returncode not in (0, 3):
        raise SystemExit(result.stderr[-2000:])
    seconds, kilobytes = json.loads(result.stdout.splitlines()[-1])
    return seconds, kilobytes / 1024


def child(words: list[str]) -> int:
    start = time.perf_counter()
    if words[0] == "lists":
        with_lists(Path(words[1]), Path(words[2]))
        code = 0
    else:
        from aleatoric.cli import main as command

        code = command(["prepare", *words, "--workers", "1"])
    print(json.dumps([time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
    return code


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--sources", nargs="*", default=SOURCES, choices=SOURCES)
    options = parser.parse_args()
    few, many = options.cases // 10, options.cases
    print(f"{'':<22}{f'{few} cases':>22}{f'{many} cases':>22}   growth")
    for source in options.sources:
        figures: dict[str, list[tuple[float, float]]] = {}
        for cases in (few, many):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                words = simulate(source, folder / "raw", cases)
                figures.setdefault(f"prepare {source}", []).append(
                    measure([words[0], words[1], str(folder / "out"), *words[2:]])
                )
                if source == "datalist":
                    figures.setdefault("MONAI, lists, np.stack", []).append(
                        measure(["lists", words[1], str(folder / "all.npy")])
                    )
        for label, ((s0, m0), (s1, m1)) in figures.items():
            print(f"{label:<22}{s0:8.1f} s {m0:8.0f} MB {s1:9.1f} s {m1:8.0f} MB   {m1 - m0:+.0f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
