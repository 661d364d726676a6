"""LIST.json as text: what the file holds before anything is known of its entries."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError

__all__ = [
    "LIST",
    "SECTIONS",
    "as_classes",
    "as_names",
    "parse_list",
    "plain_text",
    "read_bytes",
    "refuse_typo",
    "sections_of",
]

LIST = "a datalist in JSON"
#: section of the list -> its name here
SECTIONS = {"training": "training", "validation": "validation", "test": "testing", "testing": "testing"}
_ABOUT = ("name", "description", "reference", "licence", "license", "release", "tensorImageSize")
_COUNTS = ("numTraining", "numTest", "numValidation")
_TOP = (*_ABOUT, *_COUNTS, "modality", "channel_names", "channels", "labels", "classes", "raters")


def as_classes(value: Any, where: str) -> tuple[str, ...]:
    """Names of the label values 0, 1, ... from a count, a list of names, or a dictionary (either way round).

    A list whose first name is not "background" gets it. Values that a dictionary leaves out are called "class k".

    Raises:
        InputError: none of these, fewer than 2 classes or more than 256.
    """
    names: tuple[str, ...]
    if isinstance(value, int) and not isinstance(value, bool):
        if not 2 <= value <= 256:
            raise InputError(f"{where}: {value} classes found, 2 to 256 with the background expected; correct it.")
        return ("background", *(("foreground",) if value == 2 else (f"class {k}" for k in range(1, value))))
    names = as_names(value, f"{where}: classes")
    if not isinstance(value, Mapping) and names[0].lower() not in ("background", "bg"):
        names = ("background", *names)
    if not 2 <= len(names) <= 256:
        raise InputError(f"{where}: {len(names)} classes found, 2 to 256 with the background expected; name them all.")
    return names


def as_names(value: Any, where: str) -> tuple[str, ...]:
    """Names in order, from a list or from a dictionary number -> name (or name -> number, as nnU-Net has it).

    Raises:
        InputError: anything else; two equal names.
    """
    if isinstance(value, Mapping) and value:
        pairs = {}
        for key, name in value.items():
            number, text = (key, name) if str(key).isdecimal() else (name, key)
            if not str(number).isdecimal() or len(str(number)) > 3 or int(number) > 255 or not isinstance(text, str):
                raise InputError(f"{where}: {key!r}: {name!r} found, a number and a name expected; correct it.")
            pairs[int(number)] = text
        found: Sequence[Any] = [pairs.get(k, "background" if k == 0 else f"class {k}") for k in range(max(pairs) + 1)]
    elif isinstance(value, (list, tuple)) and value:
        found = value
    else:
        raise InputError(f"{where}: {value!r} found, a list of names expected; correct it.")
    names = tuple(plain_text(name, where, "a name") for name in found)
    if len(set(names)) < len(names):
        raise InputError(f"{where}: one name twice in {', '.join(names)}, different ones expected; correct it.")
    return names


def read_bytes(path: Path, what: str) -> bytes:
    """A file's content. Raises InputError where there is no file that can be read; ``what`` was expected."""
    try:
        return path.read_bytes()
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder, {what} expected; give the file itself.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}), {what} expected; correct the path.") from error


def parse_list(path: Path, content: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise InputError(f"{path}: key {twice[0]!r} found twice in one object, once expected; rename or join them.")
        return dict(pairs)

    cause: UnicodeDecodeError | None = None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text, cause = "\0", error
    if "\0" in text:
        raise InputError(
            f"{path} is no text, {LIST} expected; give the list that names the images and their labels."
        ) from cause
    try:
        top = json.loads(text, object_pairs_hook=once)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}), a datalist expected; correct the file.") from error
    if isinstance(top, list):
        top = {"training": top}
    if not isinstance(top, dict):
        raise InputError(
            f"{path} holds a {type(top).__name__}, a datalist expected: {{'training': [...]}}; correct it."
        )
    return top


def sections_of(path: Path, top: Mapping[str, Any]) -> dict[str, list[Any]]:
    for key, value in top.items():
        if key in SECTIONS or key in _TOP:
            continue
        refuse_typo(str(path), key, [*SECTIONS, *_TOP])
        if isinstance(value, list) and value and isinstance(value[0], dict) and "image" in value[0]:
            raise InputError(f"{path}: section {key!r} found, one of {', '.join(SECTIONS)} expected; rename it.")
    sections = {key: top[key] for key in SECTIONS if top.get(key) is not None}
    for key, value in sections.items():
        if not isinstance(value, list):
            raise InputError(f"{path}: {key!r} is a {type(value).__name__}, a list of entries expected; correct it.")
    if not any(sections.values()):
        raise InputError(f"{path} has no entries, some in one of {', '.join(SECTIONS)} expected; add them.")
    return sections


def refuse_typo(where: str, key: str, known: Sequence[str]) -> None:
    low = key.lower()
    for right in known:
        swapped = sorted(low) == sorted(right.lower())
        if swapped or difflib.SequenceMatcher(None, low, right.lower()).ratio() >= 0.8:
            raise InputError(
                f"{where}: unknown key {key!r} found, perhaps {right!r} is meant; correct it or rename it."
            )


def plain_text(value: Any, named: str, what: str, empty: bool = False) -> str:
    if not isinstance(value, str) or not (empty or value.strip()):
        raise InputError(f"{named}: {value!r} found, {what} expected; correct it.")
    if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in value):
        raise InputError(f"{named}: {value!r} found, {what} without control characters expected; correct it.")
    return value
