"""The whole way in minutes: simulated patches, SPU-Net trained as a MONAI Bundle, evaluated on unseen patients, drawn.

    python tools/demo.py --out demo [--patches 500] [--epochs 25]

Every command is printed before it runs, so that it can be repeated by hand. What is left in the folder:

    data/            the prepared data set            models/        model.pt, checkpoints to resume from
    training.csv     the course of every loss term    training.png   the same, drawn
    trained/, untrained/   metrics.json, per_case.csv, pictures.png of each network
    table.md         the figures of both, side by side
    report.html      both on one page: figures with intervals and tests, curves, cases with raters and samples
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = {  # name in metrics.json -> name in the table, and which way is better
    "ged": ("GED (V-statistic)", "lower"),
    "ged_unbiased": ("GED (unbiased)", "lower"),
    "ewd": ("EWD, 1 - IoU", "lower"),
    "dice": ("Dice", "higher"),
    "dice_nonempty": ("Dice, rater not empty", "higher"),
    "diversity_unbiased": ("diversity of the samples", "near the raters'"),
    "rater_diversity_unbiased": ("diversity of the raters", ""),
    "effective_rank": ("effective rank of the prior", ""),
    "gini_index": ("Gini index of the prior", ""),
}


def run(command: list[str], folder: Path) -> None:
    """Show the command as a person would type it, run it in ``folder``, end with its status if it fails."""
    shown = ["python" if part == sys.executable else part for part in command]
    print(f"\n$ cd {shlex.quote(os.path.relpath(folder))} && {shlex.join(shown)}", flush=True)
    status = subprocess.run(command, cwd=folder).returncode
    if status:
        raise SystemExit(status)


def bundle_command(run_id: str, config: str, **overrides: object) -> list[str]:
    """``python -m monai.bundle run`` with the demo's overlay."""
    files = f"['configs/{config}.json','configs/demo.json']"
    flat = [part for name, value in overrides.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", run_id, "--config_file", files, *flat]


def table(trained: dict[str, float], untrained: dict[str, float]) -> str:
    """Markdown: a row per figure."""
    lines = ["| figure | better | untrained | trained |", "|---|---|---|---|"]
    for name, (title, better) in ROWS.items():
        lines.append(f"| {title} | {better} | {untrained[name]:.3f} | {trained[name]:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to leave everything in")
    parser.add_argument("--patches", type=int, default=500, help="simulated patches, from whole patients")
    parser.add_argument("--epochs", type=int, default=25)
    options = parser.parse_args()
    begin = time.perf_counter()
    out: Path = options.out.resolve()
    bundle = ROOT / "bundles" / "spunet_segmentation"
    out.mkdir(parents=True, exist_ok=True)
    for old in ("models", "trained", "untrained"):
        shutil.rmtree(out / old, ignore_errors=True)

    prepare = [sys.executable, "-m", "aleatoric", "prepare", "phantom", str(out / "data")]
    run([*prepare, "--patches", str(options.patches), "--overwrite"], Path.cwd())
    shared = {"dataset_dir": out / "data", "ckpt_dir": out / "models"}
    run(bundle_command("training", "train", **shared, output_dir=out, max_epochs=options.epochs), bundle)
    for name in ("untrained", "trained"):
        untrained = name == "untrained"
        run(bundle_command("evaluating", "evaluate", **shared, output_dir=out / name, untrained=untrained), bundle)

    page = [sys.executable, "-W", "ignore", "-m", "aleatoric", "report", str(out / "trained"), str(out / "untrained")]
    run([*page, "--out", str(out / "report.html")], Path.cwd())

    results = {name: json.loads((out / name / "metrics.json").read_text()) for name in ("trained", "untrained")}
    text = table(results["trained"]["metrics"], results["untrained"]["metrics"])
    (out / "table.md").write_text(text)
    cases, patients = results["trained"]["cases"], results["trained"]["patients"]
    print(
        f"\n{cases} simulated patches of {patients} patients that the network has not seen, 16 samples each:\n\n{text}"
    )
    for path in ("report.html", "table.md", "trained/pictures.png", "training.png"):
        print(os.path.relpath(out / path))
    print(f"\n{time.perf_counter() - begin:.0f} s in all. The contours are real (LIDC-IDRI), the images are simulated.")


if __name__ == "__main__":
    main()
