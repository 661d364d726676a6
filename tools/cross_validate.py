"""Train and evaluate bundles on every fold of a prepared data set; a table of mean and deviation over the folds.

    python tools/cross_validate.py punet spunet generalized_punet:mixture_full --data DATASET_DIR --out DIR \\
        [--overlay NAME] [--folds 3] [--seeds 0 1 2] [--set max_epochs=300 "filters=[16,32,64,128]"]

Each fold is two processes of its own, `python -m monai.bundle run training` and `... run evaluating`, with the bundle's
config, the variant's overlay and the data set's (that of its name, where there is one); the command lines stand in the
logs. `--set` holds for all models; training and evaluation get what their config knows of it. What is left in DIR:

    MODEL/foldK_seedS/      models/model.pt, eval/metrics.json and the rest, training.log, evaluating.log,
                            fold.json (settings, seconds)
    cross_validation.csv    a row per model, fold and seed
    cross_validation.md     the settings, then mean and standard deviation (n - 1 in its divisor) per model, and of
                            several models the tests between them, with what is inside the noise
    cross_validation_tests.csv      intervals, p-values and verdicts of every pair of models

The same command goes on after a kill: finished folds are kept, an interrupted training resumes from its last
checkpoint. Other models and seeds can be added to DIR later; the tables are of all that is in it. Exit code 3: a fold
failed, the others were run.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser

from aleatoric.data.prepared.reading import SECTIONS, read_info
from aleatoric.errors import InputError
from aleatoric.files import write_atomically
from cross_validation_table import FIGURES, collect, differences, write_tables

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
# What this tool gives every fold itself.
OWN = ("dataset_dir", "ckpt_dir", "ckpt_path", "output_dir", "bundle_root", "section", "fold", "seed", "resume")
# What a figure does not depend on.
UNIMPORTANT = (*OWN, "protocol", "progress", "log_interval", "checkpoint_interval", "memory_budget", "pictures")


@dataclass(frozen=True)
class Model:
    """A bundle, or one of its variants: ``punet``, ``generalized_punet:mixture_full``."""

    name: str

    @property
    def bundle(self) -> Path:
        """Its folder."""
        return BUNDLES / f"{self.name.partition(':')[0]}_segmentation"

    def files(self, config: str, overlay: str) -> list[str]:
        """Config files within the bundle, of which the later wins."""
        return [f"configs/{name}.json" for name in (config, self.name.partition(":")[2], overlay) if name]

    def config(self, config: str, overlay: str) -> ConfigParser:
        """The files in one. Raises InputError."""
        files = [self.bundle / name for name in self.files(config, overlay)]
        for path in files:
            if not path.is_file():
                there = sorted(folder.name.removesuffix("_segmentation") for folder in BUNDLES.glob("*_segmentation"))
                raise InputError(
                    f"{self.name} found, for which there is no {path}: choose BUNDLE or BUNDLE:VARIANT of "
                    f"{', '.join(there)}, and an --overlay of its configs."
                )
        parser = ConfigParser()
        parser.read_config([str(path) for path in files])
        variant = self.name.partition(":")[2]
        if variant and parser.get("variant") != variant:
            raise InputError(
                f"{self.name} found, but configs/{variant}.json makes no other model of the bundle: give a data set's "
                f"as --overlay, and choose a variant of the bundle's model card."
            )
        return parser


@dataclass(frozen=True)
class Job:
    """One model, fold and seed."""

    model: Model
    fold: int
    seed: int
    out: Path

    def __str__(self) -> str:
        return f"{self.model.name} fold {self.fold} seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where all of it goes."""
        return self.out / self.model.name.replace(":", "-") / f"fold{self.fold}_seed{self.seed}"

    @property
    def metrics(self) -> Path:
        """Written last: it is there when the fold is finished."""
        return self.folder / "eval" / "metrics.json"

    def record(self) -> dict[str, Any]:
        """fold.json, or a new one: seconds of training, ``started`` of the last session of it (None: it ended)."""
        new = {"model": self.model.name, "fold": self.fold, "seed": self.seed}
        path = self.folder / "fold.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return {**new, "trained": False, "started": None, "seconds": 0.0, **before}

    def keep(self, record: Mapping[str, Any]) -> None:
        """Write fold.json."""
        write_atomically(self.folder / "fold.json", json.dumps(record, indent=2) + "\n")


def execute(command: Sequence[str], bundle: Path, log: Path) -> int:
    """Run in a process of its own from the bundle's folder; what it says goes to the log. Returns the exit code."""
    with log.open("wb") as file:
        file.write(f"$ {shlex.join(['python', *command[1:]])}\n".encode())
        file.flush()
        environment = {**os.environ, "MPLBACKEND": "Agg"}
        return subprocess.run(command, cwd=bundle, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode


def settings_of(model: Model, options: argparse.Namespace) -> dict[str, Any]:
    """Plain values at the top of the training's config, ``--set`` included, and what else a figure depends on."""
    content = model.config("train", options.overlay).get() | {key: _value(text) for key, text in options.set.items()}
    plain = {key: value for key, value in content.items() if key not in UNIMPORTANT and _is_plain(value)}
    more = {"overlay": options.overlay, "section": options.section, "split_hash": options.split_hash}
    return json.loads(json.dumps({**plain, **more}))


def _value(text: str) -> Any:
    """In Python's notation, otherwise a string, as MONAI's command line takes it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and value[:1] not in "$@%")


def run_job(job: Job, settings: Mapping[str, Any], options: argparse.Namespace) -> str | None:
    """Train, or go on training, and evaluate. Returns what went wrong."""
    record = {**job.record(), "settings": settings, "command": options.command}
    job.folder.mkdir(parents=True, exist_ok=True)
    if not record["trained"]:
        checkpoints = list((job.folder / "models").glob("*epoch=*.pt"))
        if (
            checkpoints and record["started"]
        ):  # the last session was interrupted; what counts of it is in its checkpoint
            record["seconds"] += max(0.0, max(path.stat().st_mtime for path in checkpoints) - record["started"])
        start = time.time()
        job.keep({**record, "started": start})
        error = _step(job, "training", "train", options, progress=False, **({"resume": True} if checkpoints else {}))
        seconds = record["seconds"] + time.time() - start
        record |= {"trained": error is None, "started": None, "seconds": seconds}
        job.keep(record)
        if error:
            return error
    error = _step(job, "evaluating", "evaluate", options, section=options.section)
    if error is None and not options.keep_checkpoints:
        for path in (job.folder / "models").glob("*epoch=*.pt"):
            path.unlink()
    return error


def _step(job: Job, run_id: str, config: str, options: argparse.Namespace, **more: object) -> str | None:
    files, log = job.model.files(config, options.overlay), job.folder / f"{run_id}.log"
    parser = job.model.config(config, options.overlay)
    overrides = {
        **{"dataset_dir": options.data, "ckpt_dir": job.folder / "models", "output_dir": job.folder / "eval"},
        **{"fold": job.fold, "seed": job.seed, **more},
        # MONAI takes an id that the config does not know, and nothing comes of it: the command line shall not claim it
        **{key: text for key, text in options.set.items() if key in parser},
    }
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", run_id, "--config_file", json.dumps(files)]
    status = execute([*command, *(f"--{key}={value}" for key, value in overrides.items())], job.model.bundle, log)
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if status == 0 and (run_id == "training" or job.metrics.is_file()):
        return None
    reason = ([line for line in lines if line.startswith("error: ")] or lines)[-1].removeprefix("error: ")
    return f"{run_id} ended with exit code {status}: {reason} (see {log})"


def check(options: argparse.Namespace) -> dict[Job, dict[str, Any]]:
    """The jobs with their settings. Raises InputError for all that can be known before the first training."""
    if not options.models or options.data is None:
        raise InputError(
            "the models' names and --data expected, not all of them found: give them, or --table-only and --out."
        )
    options.data, info = options.data.resolve(), read_info(options.data)
    split = info["folds"]
    if options.overlay is None:
        of_the_name = info["name"].replace("-", "_")
        known = all((Model(name).bundle / f"configs/{of_the_name}.json").is_file() for name in options.models)
        options.overlay = of_the_name if known else ""
    if not 1 <= options.folds <= split["folds"]:
        raise InputError(
            f"--folds {options.folds} found, 1 to {split['folds']} expected, which {options.data} has: correct it, or "
            f"prepare the data set with other folds."
        )
    options.split_hash, words = split["split_hash"], options.set
    for word in words:
        if not all(word.partition("=")):
            raise InputError(f"--set {word} found, KEY=VALUE expected: correct it (models stand before --set).")
    options.set = dict(word.split("=", 1) for word in words)
    jobs = {}
    for name in dict.fromkeys(options.models):
        model = Model(name)
        configs = [model.config(config, options.overlay) for config in ("train", "evaluate")]
        for key in options.set:
            if key in OWN:
                raise InputError(f"--set {key} found, which every fold is given by this tool: leave it out.")
            if not any(key in parser for parser in configs):
                raise InputError(
                    f"--set {key} found, an id of the training or evaluation of {name} expected: correct it."
                )
        settings = settings_of(model, options)
        for seed in options.seeds:
            for fold in range(options.folds):
                job = Job(model, fold, seed, options.out)
                wrong = differences(job.record().get("settings", {}), settings)
                if wrong:
                    raise InputError(
                        f"{job.folder} was begun with other settings, {'; '.join(wrong)} (then and now): give another "
                        f"--out, or delete that folder."
                    )
                jobs[job] = settings
    # All models of a fold before the next fold: what an interrupted series leaves can be compared.
    return dict(sorted(jobs.items(), key=lambda item: (options.seeds.index(item[0].seed), item[0].fold)))


def run_all(jobs: Mapping[Job, dict[str, Any]], options: argparse.Namespace) -> list[str]:
    """One after the other, with a line each. Returns what failed."""
    failed, spent = [], []
    for number, (job, settings) in enumerate(jobs.items(), 1):
        position = f"[{number}/{len(jobs)}] {job}:"
        if job.metrics.is_file():
            print(f"{position} done before", flush=True)
            continue
        print(f"{position} training, see {job.folder / 'training.log'}", flush=True)
        start = time.time()
        error = run_job(job, settings, options)
        spent.append(time.time() - start)
        if error:
            failed.append(f"{job}: {error}")
            print(f"{position} FAILED, {error}", flush=True)
            continue
        write_tables(options.out)
        metrics = json.loads(job.metrics.read_text(encoding="utf-8"))["metrics"]
        figures = ", ".join(f"{name} {metrics[name]:.3f}" for name in FIGURES[:3])
        left = sum(not other.metrics.is_file() for other in list(jobs)[number:])
        rest = f"{left} left, about {left * np.mean(spent) / 60:.0f} min" if left else "the last"
        print(f"{position} {figures}, {spent[-1]:.0f} s; {rest}", flush=True)
    return failed


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="BUNDLE[:VARIANT]")
    parser.add_argument("--data", type=Path, help="folder of a prepared data set")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--overlay", help="the data set's; '' for none (that of its name, if there is one)")
    parser.add_argument("--folds", type=int, default=3, help="the first so many of the data set's (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="trainings of each fold (0)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="ids of the configs")
    parser.add_argument("--section", choices=SECTIONS, default="testing", help="what is evaluated (%(default)s)")
    parser.add_argument("--keep-checkpoints", action="store_true", help="beside model.pt, of finished folds too")
    parser.add_argument("--table-only", action="store_true", help="run nothing, make the tables of DIR again")
    options = parser.parse_args(words)
    options.command = shlex.join(["python", "tools/cross_validate.py", *(sys.argv[1:] if words is None else words)])
    options.out = options.out.resolve()
    try:
        jobs = {} if options.table_only else check(options)
        if not collect(options.out) and not jobs:  # what cannot be averaged is said here, before the first training
            raise InputError(
                f"{options.out} holds no finished fold, a folder that this tool wrote expected: correct it."
            )
        failed = run_all(jobs, options)
        print(f"\n{write_tables(options.out)}\n{options.out / 'cross_validation.csv'}", flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    for sentence in failed:
        print(f"failed: {sentence}", file=sys.stderr)
    return 3 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the training would outlive this process
    sys.exit(main())
