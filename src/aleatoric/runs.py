"""What a training leaves behind for the commands that come after it: run.json, beside its figures."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import monai
import numpy as np
import scipy
import torch
from ignite.engine import Engine, Events

from . import __version__
from .data.prepared.reading import read_info
from .errors import InputError
from .files import write_atomically

__all__ = ["RUN_FILE", "Run", "RunRecord", "describe_bundle", "read_run", "versions"]

RUN_FILE = "run.json"
_FORMAT = 1
_PATHS = {"bundle_root": "configs", "ckpt_dir": "", "dataset_dir": "dataset.json"}  # and what is in it


def versions() -> dict[str, str]:
    """Of what computes: this package, torch, MONAI, numpy, scipy, Python."""
    return {
        "aleatoric": __version__,
        "torch": torch.__version__,
        "monai": monai.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": sys.version.split()[0],
    }


def describe_bundle(bundle_root: Path) -> dict[str, Any]:
    """Name, folder and version of a bundle, as far as its metadata.json tells them."""
    metadata = bundle_root / "configs" / "metadata.json"
    about = json.loads(metadata.read_text(encoding="utf-8")) if metadata.is_file() else {}
    folder = bundle_root.resolve().name
    return {"name": about.get("name", folder), "folder": folder, "version": about.get("version")}


class RunRecord:
    """Handler that writes run.json at the start of a training: what is trained, on what, into which folders.

    A path is kept relative to run.json, so that a folder that is moved whole still works, and as it was besides.

    Args:
        output_dir: where it goes.
        bundle_root: the bundle, whose configs make the network.
        ckpt_dir: where the best model goes.
        dataset_dir: the prepared data set.
        fold: its fold.
        seed: of the training.
        settings: the choices that a checkpoint only fits with (:class:`~aleatoric.handlers.ModelSettings`).
        recipe: the choices of the training that it does not depend on, such as the learning rate.
    """

    def __init__(
        self,
        output_dir: str,
        bundle_root: str,
        ckpt_dir: str,
        dataset_dir: str,
        fold: int,
        seed: int | None,
        settings: Any,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.paths = dict(zip(_PATHS, (bundle_root, ckpt_dir, dataset_dir)))
        self.fold = fold
        self.seed = seed
        self.settings = settings
        self.recipe = dict(recipe or {})

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Write."""
        output = self.output_dir.resolve()
        resolved = {name: Path(path).resolve() for name, path in self.paths.items()}
        info = read_info(resolved["dataset_dir"])
        record = {
            "format_version": _FORMAT,
            "bundle": describe_bundle(resolved["bundle_root"]),
            **{name: _relative(path, output) for name, path in resolved.items()},
            "absolute": {name: path.as_posix() for name, path in resolved.items()},
            "dataset": {
                "name": info.get("name"),
                "source": info.get("source"),
                "sha256": info["sha256"],
                "split_hash": info["folds"].get("split_hash"),
            },
            "fold": int(self.fold),
            "seed": self.seed,
            "settings": self.settings.state_dict(),
            "recipe": self.recipe,
            "versions": versions(),
        }
        write_atomically(self.output_dir / RUN_FILE, json.dumps(record, indent=2) + "\n")


class Run(NamedTuple):
    """A training, as its run.json tells it; the paths are where they lie now."""

    output_dir: Path
    bundle_root: Path
    ckpt_dir: Path
    dataset_dir: Path
    bundle: Mapping[str, Any]  # name, folder, version
    dataset: Mapping[str, Any]  # name, source, sha256, split_hash
    fold: int
    seed: int | None
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]  # empty in the record of an older version
    versions: Mapping[str, str]


def read_run(run_dir: str | os.PathLike[str]) -> Run:
    """The training in a folder.

    Args:
        run_dir: the folder of run.json, or a bundle's folder with one training under eval.

    Raises:
        InputError: no such folder, none or several trainings in it, a damaged run.json.
    """
    path = _find(Path(run_dir))
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["format_version"]
        if version != _FORMAT:
            raise InputError(f"{path} has format version {version}, expected {_FORMAT}: train again with this version.")
        bundle_root, ckpt_dir, dataset_dir = (
            _place(path.parent, record[name], record["absolute"][name], content) for name, content in _PATHS.items()
        )
        return Run(
            path.parent,
            bundle_root,
            ckpt_dir,
            dataset_dir,
            bundle=dict(record["bundle"]),
            dataset=dict(record["dataset"]),
            fold=int(record["fold"]),
            seed=record["seed"],
            settings=dict(record["settings"]),
            recipe=dict(record.get("recipe") or {}),
            versions=dict(record["versions"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} does not describe a training ({type(error).__name__}: {error}): train again, or restore the file."
        ) from error


def _find(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder, expected that of a training ({RUN_FILE} in it) or a bundle's.")
    if (folder / RUN_FILE).is_file():
        return folder / RUN_FILE
    found = sorted((folder / "eval").rglob(RUN_FILE))
    if len(found) > 1:
        names = ", ".join(str(path.parent) for path in found)
        raise InputError(f"{folder} has {len(found)} trainings, expected one: give the folder of one of {names}.")
    if not found:
        raise InputError(
            f"there is no {RUN_FILE} in {folder} or under its folder eval: train first (run training), or give the "
            f"output folder of a training, which writes it as it starts."
        )
    return found[0]


def _relative(path: Path, start: Path) -> str:
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def _place(start: Path, relative: str, absolute: str, content: str) -> Path:
    # any folder has a folder above it: only what holds the content is the one that was meant
    beside, before = Path(os.path.normpath(start.resolve() / relative)), Path(absolute)
    return before if not (beside / content).exists() and (before / content).exists() else beside
