"""What lies in the folders of BraTS: cases of four sequences and a segmentation, by the names of their files.

A case is the files of one folder that share the part of their name before the sequence: ``<case>_flair.nii.gz`` of the
challenges of 2012 to 2021, ``<case>-t2f.nii.gz`` of those since. Its grade is read from the nearest folder that is
called ``HGG`` or ``LGG``, its site and patient from its name. Voxels are not read here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError

__all__ = ["SEQUENCES", "BratsCase", "find_brats_cases", "find_cases"]

#: the order of the channels, as the SSN paper's authors have it
SEQUENCES = ("flair", "t1", "t1ce", "t2")

_KEYS = {"t2f": "flair", "t1n": "t1", "t1c": "t1ce", "t1gd": "t1ce", "t2w": "t2", "segm": "seg"}
_FILE = re.compile(r"(.+)[_-](flair|t2f|t1ce|t1c|t1gd|t1n|t1|t2w|t2|segm?)\.nii(\.gz)?", re.IGNORECASE)
_GRADES = ("HGG", "LGG")
# Brats17_TCIA_111_1: site, number, scan. BraTS20_Training_001 has neither site nor scan.
_WITH_SITE = re.compile(r"(brats\d\d_([A-Za-z0-9]+)_[A-Za-z0-9]+)_\d+", re.IGNORECASE)
_WITH_SCAN = re.compile(r"(brats-[A-Za-z]+-\d+)-\d+", re.IGNORECASE)  # BraTS-GLI-00000-000
_IMAGE = (".nii", ".nii.gz")


class BratsCase(NamedTuple):
    """One case: its files, none of them opened."""

    name: str
    patient: str  # a patient may have several scans
    site: str  # "" where the name does not say
    grade: str  # "HGG", "LGG", or "" where no folder says
    folder: str
    label: str  # the folder below ROOT, for people
    files: dict[str, str]  # key of SEQUENCES, or "seg" -> file name
    problems: tuple[tuple[str, str], ...]  # (reason, sentence) on files that are not used

    @property
    def first(self) -> Path:
        """Any one of its files."""
        return Path(self.folder) / next(iter(self.files.values()))

    def path(self, key: str) -> Path:
        """File of a sequence, or of ``"seg"``. Raises InputError where the case has none."""
        if key not in self.files:
            raise InputError(
                f"{self.folder} has no {self.name}_{key}.nii.gz, {', '.join(SEQUENCES)} expected; download the case "
                "again."
            )
        return Path(self.folder) / self.files[key]


def find_cases(root: str | os.PathLike[str]) -> list[BratsCase]:
    """The cases below (or at) ``root``, by their names.

    Raises:
        InputError: no such folder, no case, or two cases of one name.
    """
    top = Path(root)
    if not top.is_dir():
        raise InputError(f"{top} is not a folder, the folder with BraTS's cases expected; correct the path.")
    top = top.resolve()
    found: dict[str, BratsCase] = {}
    for folder, files in _folders(top):
        for case in _cases(folder, files, top):
            other = found.setdefault(case.name, case)
            if other is not case:
                raise InputError(
                    f"case {case.name} found in {other.folder} and in {case.folder}, one expected; give the folder of "
                    "one release, or remove one."
                )
    if not found:
        raise InputError(
            f"{top} holds no case (<case>_flair.nii.gz, _t1, _t1ce, _t2, _seg), some expected; give the folder where "
            "BraTS was unpacked."
        )
    return [found[name] for name in sorted(found)]


def find_brats_cases(dataset_dir: str | os.PathLike[str]) -> list[list[str]]:
    """What inference reads, for MONAI's ``LoadImaged``: of each case below ``dataset_dir`` the files of its sequences.

    A list of files becomes one image of as many channels, :data:`SEQUENCES` in their order. Segmentations are passed
    over. A file, or a folder in which no file is named as BraTS's are, is taken for images of four channels each
    (4D NIfTI, the channels in that order).

    Raises:
        InputError: nothing there; a case without one of its sequences; two cases of one name.
    """
    root = Path(dataset_dir)
    if root.is_dir():
        own = sorted(path for path in root.iterdir() if path.is_file() and path.name.lower().endswith(_IMAGE))
        if own and not any(_FILE.fullmatch(path.name) for path in own):
            return [[str(path)] for path in own]
        return [[str(case.path(key)) for key in SEQUENCES] for case in find_cases(root)]
    if root.is_file() and root.name.lower().endswith(_IMAGE):
        return [[str(root)]]
    raise InputError(
        f"there is no NIfTI file or folder {root}: give dataset_dir, BraTS's folders, or NIfTI files of "
        f"{len(SEQUENCES)} channels ({', '.join(SEQUENCES)})."
    )


def _folders(top: Path) -> Iterator[tuple[Path, list[str]]]:
    seen: set[str] = set()  # links are followed, so they may lead back
    for folder, below, files in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "__MACOSX")
        yield Path(folder), sorted(name for name in files if not name.startswith("."))


def _cases(folder: Path, files: list[str], top: Path) -> list[BratsCase]:
    named: dict[str, dict[str, str]] = {}
    problems: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        match = _FILE.fullmatch(file)
        if match is None:
            continue
        name, key = match[1], match[2].lower()
        own = named.setdefault(name, {})
        other = own.setdefault(_KEYS.get(key, key), file)
        if other != file:
            sentence = f"{folder} has {other} and {file}; the first is taken."
            problems.setdefault(name, []).append(("second file of a sequence", sentence))
    # BraTS20_Training_355's segmentation has a name of its own
    images = [name for name, own in named.items() if own.keys() != {"seg"}]
    strays = [name for name in named if name not in images]
    if len(images) == 1 and len(strays) == 1 and "seg" not in named[images[0]]:
        named[images[0]]["seg"] = named.pop(strays[0])["seg"]
    return [_case(folder, name, own, tuple(problems.get(name, ())), top) for name, own in named.items()]


def _case(
    folder: Path, name: str, files: dict[str, str], problems: tuple[tuple[str, str], ...], top: Path
) -> BratsCase:
    with_site, with_scan = _WITH_SITE.fullmatch(name), _WITH_SCAN.fullmatch(name)
    grades = [part.upper() for part in reversed(folder.parts) if part.upper() in _GRADES]
    match = with_site or with_scan
    return BratsCase(
        name=name,
        patient=match[1] if match else name,
        site=with_site[2].upper() if with_site else "",
        grade=grades[0] if grades else "",
        folder=str(folder),
        label=folder.relative_to(top).as_posix() if folder != top else folder.name,
        files=files,
        problems=problems,
    )
