"""``aleatoric prepare kohl``: the LIDC crops that come with the hierarchical Probabilistic U-Net (Kohl et al. 2019).

    ROOT/train/images/LIDC-IDRI-0001/z-105.0_c0.png        180 x 180 pixels of 0.5 mm, 8-bit grey
    ROOT/train/gt/LIDC-IDRI-0001/z-105.0_c0_l0.png         mask of a rater, 0 or 255; l0 to l3
    ROOT/val/..., ROOT/test/...

The release is ``gs://hpunet-data/lidc_crops/{train,val,test}.tar.gz``; its README (deepmind-research,
hierarchical_probabilistic_unet) counts 8,843 + 1,993 + 1,980 images of 530 + 111 + 103 patients. The HU window behind
the 8 bits is not documented.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import Unpack

from ...errors import InputError
from ..prepared.preparation import (
    OutputOptions,
    Patches,
    add_output_arguments,
    conclude,
    output_options,
    prepare_units,
    random_split,
    writer_options,
)
from ..prepared.splits import TEST, TRAIN, GivenSplit, Split
from ..prepared.writer import PreparedDatasetWriter

__all__ = ["CROP_SIZE", "PUBLISHED", "RATERS", "add_arguments", "prepare_kohl", "run"]

CROP_SIZE = 180
RATERS = 4
PUBLISHED = {"train": (8843, 530), "val": (1993, 111), "test": (1980, 103)}  # images, patients
_SPACING = 0.5  # mm
_FOLD_OF = {"test": TEST, "val": "0", "train": TRAIN}  # in this order: where a patient goes who lies in two of them
_MASK = re.compile(r"(?P<image>.+)_l(?P<rater>\d+)")
_SLICE = re.compile(r"z(?P<z>-?\d+(\.\d+)?)_c\d+")
_PATIENT = re.compile(r"LIDC-IDRI-\d{4}")


class _Folder(NamedTuple):
    split: str  # of the release
    images: Path  # of one patient
    masks: Path


class _Task(NamedTuple):
    patient: str
    folders: tuple[_Folder, ...]  # more than one only where the release is not as published
    size: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``aleatoric prepare kohl``."""
    parser.add_argument("root", metavar="ROOT", help="folder with the unpacked train, val and test of lidc_crops")
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument(
        "--size",
        type=int,
        default=128,
        help=f"side of the central window in pixels (default: 128; {CROP_SIZE} keeps everything)",
    )
    parser.add_argument(
        "--split",
        choices=("release", "random"),
        default="release",
        help="release: its test is for testing, its val is fold 0, its train is always for training (default); random: "
        "by patient from --seed",
    )
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """``aleatoric prepare kohl``; returns the exit code."""
    return conclude(prepare_kohl(args.root, args.out, size=args.size, split=args.split, **output_options(args)))


def prepare_kohl(
    root: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    size: int = 128,
    split: str = "release",
    **output: Unpack[OutputOptions],
) -> Path:
    """Write the prepared data set of the unpacked release below ``root``.

    Args:
        root: holds ``train``, ``val``, ``test`` (some of them will do), directly or one folder deeper.
        size: side of the central window, 1..180 pixels.
        split: ``"release"`` or ``"random"``.
        output: see :class:`.prepared.preparation.OutputOptions`; seed, test_fraction and folds count for
            ``"random"`` only.

    Raises:
        InputError: not the release, not unpacked, no image that can be used, a wrong option, no space left.
    """
    if not 1 <= size <= CROP_SIZE:
        raise InputError(f"size {size} found, 1 to {CROP_SIZE} expected; 128 is what the papers take.")
    if split not in ("release", "random"):
        raise InputError(f"split {split!r} found, 'release' or 'random' expected; choose one of them.")
    places = _splits(Path(root))
    folders = list(_folders(places))
    patients: dict[str, list[_Folder]] = {}
    for patient, folder in folders:
        patients.setdefault(patient, []).append(folder)
    if not patients:
        raise InputError(f"{root} holds no patient's folder of images; unpack the release again.")
    fold_of = {patient: min((f.split for f in found), key=list(_FOLD_OF).index) for patient, found in patients.items()}
    rule: Split = random_split(output)
    if split == "release":
        rule = GivenSplit({p: _FOLD_OF[name] for p, name in fold_of.items()}, 1, "the release's folders")
    writer = PreparedDatasetWriter(
        out_dir,
        name="kohl",
        source="LIDC-IDRI (The Cancer Imaging Archive), crops of Kohl et al. 2019 (hpunet-data/lidc_crops)",
        options={"size": size, "split": split},
        channels=["CT"],
        classes=["background", "nodule"],
        raters=RATERS,
        intensity_window=(0, 255),
        image_dtype="int16",
        patch_size=(size, size),
        origin=root,
        split=rule,
        **writer_options(output),
    )
    tasks = {patient: _Task(patient, tuple(found), size) for patient, found in sorted(patients.items())}
    report = {"notes": list(_notes(places, folders, patients, fold_of if split == "release" else None))}
    return prepare_units(writer, _make, tasks, label="patients", workers=output.get("workers"), report=report)


def _splits(root: Path) -> dict[str, Path]:
    """Split -> the folder that holds its ``images`` and ``gt``."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder, the one with the unpacked lidc_crops expected; correct the path.")
    places: dict[str, Path] = {}
    for name in PUBLISHED:
        # lidc_crops_train, train/train: how people unpack it
        found = [
            path
            for pattern in (name, f"*_{name}", f"*/{name}", f"*/*_{name}")
            for path in sorted(root.glob(pattern))
            if (path / "images").is_dir()
        ]
        if found:
            places[name] = found[0]
        else:
            packed = sorted(root.glob(f"*{name}.tar*")) + sorted(root.glob(f"*{name}.tgz"))
            if packed:
                raise InputError(
                    f"{packed[0]} is not unpacked, the folder {name} expected beside it; run tar xzf {packed[0].name} "
                    f"in {root}."
                )
    if not places:
        raise InputError(
            f"{root} holds none of train/images, val/images and test/images, the unpacked lidc_crops expected; correct "
            "the path or unpack train.tar.gz, val.tar.gz and test.tar.gz there."
        )
    for name, place in places.items():
        if not (place / "gt").is_dir():
            raise InputError(f"{place} holds no folder gt with the masks of {name}; unpack {name}.tar.gz again.")
    return places


def _folders(places: Mapping[str, Path]) -> Iterator[tuple[str, _Folder]]:
    """(patient, folder) of every folder below ``images`` or ``gt``."""
    for split, place in places.items():
        names = {path.name for kind in ("images", "gt") for path in (place / kind).iterdir() if path.is_dir()}
        for name in sorted(names):
            known = _PATIENT.match(name)
            patient = known.group() if known else name
            yield patient, _Folder(split, place / "images" / name, place / "gt" / name)


def _notes(
    places: Mapping[str, Path],
    folders: list[tuple[str, _Folder]],
    patients: Mapping[str, list[_Folder]],
    fold_of: Mapping[str, str] | None,
) -> Iterator[str]:
    for split, (images, people) in PUBLISHED.items():
        here = [(patient, folder) for patient, folder in folders if folder.split == split]
        count = (sum(len(_pngs(folder.images)) for _, folder in here), len({patient for patient, _ in here}))
        if count != (images, people):
            found = f"{count[0]} images of {count[1]} patients" if split in places else "absent"
            yield f"{split}: {found}; the release has {images} of {people}."
    for patient, own in sorted(patients.items()):
        splits = sorted({folder.split for folder in own})
        if len(splits) > 1:
            side = f", all images go to {fold_of[patient]}" if fold_of else ""
            yield f"patient {patient} lies in {' and '.join(splits)}{side}."


def _make(task: _Task) -> Patches:
    """One patient's patches."""
    patches = Patches()
    seen: set[str] = set()
    masks = [_masks(folder.masks) for folder in task.folders]
    raters = {rater for found in masks for by_rater in found.values() for rater in by_rater}
    # The release's code counts from 0, its README from 1.
    first = 0 if 0 in raters or RATERS not in raters else 1
    for folder, drawn in zip(task.folders, masks):
        pictures = _pngs(folder.images)
        for name in sorted({*pictures, *drawn}):
            if name in seen:
                sentence = f"{pictures.get(name, folder.images / name)} has the name of another image of this patient."
                patches.skip("image found twice", sentence)
                continue
            seen.add(name)
            if name not in pictures:
                patches.skip("image missing", f"{folder.images / name}.png is missing, its masks are there.")
                continue
            try:
                image = _read_png(pictures[name], task.size)
            except InputError as error:
                patches.skip("image that cannot be used", str(error))
                continue
            label, valid = _label(patches, folder.masks / name, drawn.get(name, {}), first, task.size)
            if not valid.any():
                patches.skip("image without any mask", f"{pictures[name]} has no mask that can be used.")
                continue
            z = _SLICE.fullmatch(name)
            case = {
                "case": f"{task.patient}_{name}",
                "patient": task.patient,
                "slice": z["z"] if z else name,
                "released_as": folder.split,
                "spacing": f"{_SPACING:g}",
            }
            patches.add(image[None].astype(np.int16), label, valid, case)
    return patches


def _label(
    patches: Patches, stem: Path, by_rater: Mapping[int, Path], first: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(RATERS, size, size) uint8 and (RATERS,) bool; what is missing or damaged is reported and not valid."""
    label = np.zeros((RATERS, size, size), np.uint8)
    valid = np.zeros(RATERS, bool)
    for slot in range(RATERS):
        path = by_rater.get(first + slot)
        if path is None:
            patches.skip("mask missing", f"{stem}_l{first + slot}.png is missing; that rater counts as not asked.")
            continue
        try:
            mask = _read_png(path, size)
            if not np.isin(mask, (0, 255)).all():
                raise InputError(f"{path} has other values than 0 and 255, a mask expected; get it again.")
        except InputError as error:
            patches.skip("mask that cannot be used", str(error))
            continue
        label[slot], valid[slot] = mask > 0, True
    return label, valid


def _pngs(folder: Path) -> dict[str, Path]:
    """Name without suffix -> path."""
    if not folder.is_dir():
        return {}
    # "._name.png" is what macOS leaves beside name.png
    return {path.stem: path for path in folder.iterdir() if path.suffix == ".png" and not path.name.startswith(".")}


def _masks(folder: Path) -> dict[str, dict[int, Path]]:
    """Image's name -> rater's number -> path."""
    found: dict[str, dict[int, Path]] = {}
    for name, path in _pngs(folder).items():
        match = _MASK.fullmatch(name)
        if match:
            found.setdefault(match["image"], {})[int(match["rater"])] = path
    return found


def _read_png(path: Path, size: int) -> np.ndarray:
    """(size, size) uint8, the centre of a crop. Raises InputError for anything but an undamaged 180 x 180 grey PNG."""
    from PIL import Image

    wanted = f"an 8-bit grey PNG of {CROP_SIZE} x {CROP_SIZE} pixels expected"
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
                kind, shape = picture.mode, picture.size
                picture.verify()  # the checksums, which decoding ignores
        if kind not in ("L", "1") or shape != (CROP_SIZE, CROP_SIZE):
            raise InputError(f"{path} is of kind {kind} and {shape[0]} x {shape[1]} pixels, {wanted}; get it again.")
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            pixels = np.asarray(picture.convert("L"))
    except InputError:
        raise
    except Exception as error:  # Pillow lets zlib.error, struct.error, SyntaxError, OSError and more out
        raise InputError(f"{path} cannot be read ({type(error).__name__}), {wanted}; get it again.") from error
    start = (CROP_SIZE - size) // 2
    return pixels[start : start + size, start : start + size]
