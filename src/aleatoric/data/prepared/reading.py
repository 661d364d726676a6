"""Reading a prepared data set: a folder that numpy alone can read.

``dataset.json`` (what it is), ``cases.csv`` (a row per patch), ``images.npy`` (n, C, *S) int16 or float32,
``labels.npy`` (n, R, *S) uint8, ``rater_valid.npy`` (n, R) bool.
"""

from __future__ import annotations

import csv
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from ...files import sha256
from .format import ARRAYS, CASE_COLUMNS, FORMAT_VERSION, layout
from .splits import TEST, split_hash
from .writer import PreparedDatasetWriter

__all__ = [
    "FORMAT_VERSION",
    "SECTIONS",
    "PreparedDataset",
    "PreparedDatasetWriter",
    "load_dataset",
    "network_size",
    "read_info",
]

SECTIONS = ("training", "validation", "testing")
_CHUNK = 1 << 22
_AGAIN = "prepare the data set again"
_GIVE = "make one with 'aleatoric prepare', or give --dataset_dir (--prepared_dir for inference with datalist.json)"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared data set; pixels stay on the disk until they are asked for.

    Attributes:
        root: its folder.
        info: dataset.json.
        cases: the rows of cases.csv, one per patch.
        images: (n, C, *S) int16 or float32, memory-mapped.
        labels: (n, R, *S) uint8, memory-mapped.
        rater_valid: (n, R) bool.
    """

    root: Path
    info: dict[str, Any]
    cases: list[dict[str, str]]
    images: np.ndarray
    labels: np.ndarray
    rater_valid: np.ndarray

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def intensity_window(self) -> tuple[float, float]:
        """(low, high), in the units of ``images``, that a loader maps to [0, 1]."""
        low, high = self.info["intensity_window"]
        return float(low), float(high)

    def indices(self, section: str, fold: int = 0) -> np.ndarray:
        """Positions of the patches of one section, ascending, int64.

        ``testing`` is the same for every fold, ``validation`` is the fold itself, ``training`` are the other folds.
        With too few patients for two disjoint sets, training and validation are both all patients that are not
        for testing, and a warning says so.

        Raises:
            InputError: unknown section or fold.
        """
        if section not in SECTIONS:
            raise InputError(f"section {section!r} found, one of {', '.join(SECTIONS)} expected; correct it.")
        folds = int(self.info["folds"]["folds"])
        if not 0 <= int(fold) < folds:
            raise InputError(f"fold {fold} found, 0 to {folds - 1} expected in {self.root}; correct it.")
        of_case = np.array([row["fold"] for row in self.cases])
        testing, validation = of_case == TEST, of_case == str(int(fold))
        if section == "testing":
            chosen = testing
        else:
            training = ~testing & ~validation
            if not training.any() or not validation.any():
                if section == "validation":
                    logger.warning(
                        "%s has too few patients for a validation of its own in fold %s: the training patients are "
                        "used, so the validation figures say nothing about unseen patients.",
                        self.root,
                        fold,
                    )
                training = validation = ~testing
            chosen = training if section == "training" else validation
        return np.flatnonzero(chosen).astype(np.int64)


def load_dataset(
    dataset_dir: str | os.PathLike[str],
    check_hash: bool = True,
    *,
    channels: int | None = None,
    classes: int | None = None,
    raters: int | None = None,
    spatial_dims: int | None = None,
) -> PreparedDataset:
    """Open a prepared data set and check it.

    Args:
        dataset_dir: its folder.
        check_hash: compare the arrays with their SHA-256 in dataset.json (one to three seconds per GB).
        channels, classes, raters, spatial_dims: what a config was written for; ``None``: any. ``classes`` counts the
            network's output channels, 1 for background and one class.

    Raises:
        InputError: no such folder or a file is missing; another format version; wrong hash; wrong shapes or types;
            labels outside the classes; NaN or infinity in a floating image (the case is named); not the channels,
            classes, raters or dimensions that were asked for.
    """
    root, info = Path(dataset_dir), read_info(dataset_dir)
    with open(root / "cases.csv", newline="", encoding="utf-8") as file:
        cases = [dict(row) for row in csv.DictReader(file)]
    if check_hash:
        _check_hashes(root, info)
    images, labels, rater_valid = (_read_array(root / name) for name in ARRAYS)
    dataset = PreparedDataset(root, info, cases, images, labels, np.asarray(rater_valid))
    _check_layout(dataset)
    _check_values(dataset)
    _check_wanted(dataset, channels, classes, raters, spatial_dims)
    return dataset


def read_info(dataset_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """dataset.json of a prepared data set.

    Raises:
        InputError: no such folder, a file of the set is missing, or another format version.
    """
    root = Path(dataset_dir)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder, a prepared data set expected; {_GIVE}.")
    missing = [name for name in ("dataset.json", "cases.csv", *ARRAYS) if not (root / name).is_file()]
    if "dataset.json" in missing:
        raise InputError(f"{root} is no prepared data set (it has no dataset.json); {_GIVE}.")
    if missing:
        raise InputError(
            f"{root} is incomplete: it lacks {', '.join(missing)}, a complete prepared data set expected; {_AGAIN}."
        )
    try:
        info = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
        version = info["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{root}/dataset.json does not describe a prepared data set ({error}); {_AGAIN}.") from error
    if version != FORMAT_VERSION:
        raise InputError(f"{root} has format version {version}, {FORMAT_VERSION} expected; {_AGAIN}.")
    needed = ("channels", "classes", "raters", "intensity_window", "image_dtype", "patch_size", "folds", "sha256")
    absent = [key for key in needed if key not in info]
    if absent:
        raise InputError(f"{root}/dataset.json lacks {', '.join(absent)}; {_AGAIN}.")
    return dict(info)


def _check_hashes(root: Path, info: dict[str, Any]) -> None:
    with ThreadPoolExecutor(len(ARRAYS)) as pool:  # hashlib lets go of the interpreter lock
        found = dict(zip(ARRAYS, pool.map(lambda name: sha256(root / name), ARRAYS)))
    for name in ARRAYS:
        if found[name] != info["sha256"].get(name):
            raise InputError(f"{root / name} has another SHA-256 than dataset.json says, it was changed; {_AGAIN}.")


def _read_array(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no complete numpy array ({error}); {_AGAIN}.") from error
    return array


def _check_layout(dataset: PreparedDataset) -> None:
    info, root, count = dataset.info, dataset.root, len(dataset.cases)
    if not count:
        raise InputError(f"{root}/cases.csv has no row, a row per patch expected; {_AGAIN}.")
    arrays = {"images": dataset.images, "labels": dataset.labels, "rater_valid": dataset.rater_valid}
    for key, (shape, dtype) in layout(info, count).items():
        found = arrays[key]
        if found.shape != shape or found.dtype != dtype:
            raise InputError(
                f"{root / key}.npy is {found.dtype} of shape {found.shape}, {dtype} of {shape} expected; {_AGAIN}."
            )
    absent = [column for column in CASE_COLUMNS if column not in dataset.cases[0]]
    if absent:
        raise InputError(f"{root}/cases.csv lacks the column {', '.join(absent)}; {_AGAIN}.")
    fold_of = {row["patient"]: row["fold"] for row in dataset.cases}
    if any(fold_of[row["patient"]] != row["fold"] for row in dataset.cases):
        raise InputError(f"{root}/cases.csv puts a patient into two folds, one expected; {_AGAIN}.")
    if split_hash(fold_of) != info["folds"].get("split_hash"):
        raise InputError(f"{root}/cases.csv has another split than dataset.json says, it was changed; {_AGAIN}.")


def _check_values(dataset: PreparedDataset) -> None:
    classes = len(dataset.info["classes"])
    per_case = int(np.prod(dataset.labels.shape[1:]))
    step = max(1, 4 * _CHUNK // per_case)
    for start in range(0, len(dataset), step):
        highest = int(dataset.labels[start : start + step].max())
        if highest >= classes:
            raise InputError(
                f"label value {highest} found in {dataset.root}, 0..{classes - 1} expected "
                f"({', '.join(dataset.info['classes'])}); correct the labels and {_AGAIN}."
            )
        if dataset.images.dtype.kind == "f":
            block = dataset.images[start : start + step]
            finite = np.isfinite(block).reshape(len(block), -1).all(axis=1)
            if not finite.all():
                case = dataset.cases[start + int(np.flatnonzero(~finite)[0])]["case"]
                raise InputError(
                    f"NaN or infinity found in the image of case {case} in {dataset.root}, finite values expected; "
                    f"repair or leave out that image and {_AGAIN}."
                )


def _check_wanted(
    dataset: PreparedDataset, channels: int | None, classes: int | None, raters: int | None, spatial_dims: int | None
) -> None:
    info, size = dataset.info, _network_size(dataset.info)
    # first: of another dimension nothing else would fit
    dimensions = len(info["patch_size"])
    if spatial_dims is not None and dimensions != spatial_dims:
        raise InputError(
            f"{dataset.root} holds {dimensions}D patches, the network is {spatial_dims}D; prepare it in "
            f"{spatial_dims}D or take another bundle."
        )
    for what, found, expected in (("channels", size.channels, channels), ("classes", size.classes, classes)):
        if expected is not None and found != expected:
            raise InputError(
                f"{dataset.root} has {found} {what} ({', '.join(info[what])}), the network {expected}; "
                f"give --{what} {found}, or configs/datalist.json behind this config, or another data set."
            )
    if raters is not None and int(info["raters"]) != raters:
        raise InputError(
            f"{dataset.root} ({info['name']}) has {info['raters']} raters, {raters} expected by the config; give the "
            "data set that the config is for, or another config."
        )


class NetworkSize(NamedTuple):
    """What a network for a data set must have."""

    channels: int  # of the image
    classes: int  # output channels: 1 with a sigmoid for background and one class, else one per class


def network_size(dataset_dir: str | os.PathLike[str]) -> NetworkSize:
    """Channels and classes of a prepared data set, from dataset.json alone.

    Raises:
        InputError: no such folder or no dataset.json of this version in it.
    """
    return _network_size(read_info(dataset_dir))


def _network_size(info: dict[str, Any]) -> NetworkSize:
    classes = len(info["classes"])
    return NetworkSize(len(info["channels"]), 1 if classes == 2 else classes)
