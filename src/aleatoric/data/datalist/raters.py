"""Who the raters of a datalist are: the names that it gives, or the positions in its lists of labels."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ...errors import InputError
from .json import as_names

__all__ = ["raters_of", "slots"]

_RARE = 5  # a rater who is named in at most 1/5 of the others' median number of entries is worth a note
_NOTED = 5


def raters_of(
    path: Path, top: Mapping[str, Any], labelled: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, ...], list[str]]:
    """R names, and what a user should know of them.

    A note is on a rater who is named in at most a fifth of the entries that the others' median rater is named in (one
    entry where that is five or more): a mistyped name makes a rater of its own. None where the list gives ``raters``.

    Raises:
        InputError: a name that ``raters`` lacks, more labels than raters, raters named and not named in one list.
    """
    given = as_names(top["raters"], f"{path}: raters") if top.get("raters") is not None else None
    named: dict[str, str] = {}
    counts: Counter[str] = Counter()
    length, longest = 0, ""
    for fields in labelled:
        if isinstance(fields["labels"], dict):
            counts.update(fields["labels"].keys())
            for rater in fields["labels"]:
                named.setdefault(rater, fields["where"])
        elif len(fields["labels"]) > length:
            length, longest = len(fields["labels"]), fields["where"]
    if given is not None:
        if unknown := [rater for rater in named if rater not in given]:
            raise InputError(
                f"{path}: {named[unknown[0]]} names rater {unknown[0]!r}, one of {', '.join(given)} expected; "
                "correct it."
            )
        if length > len(given):
            raise InputError(
                f"{path}: {longest} has {length} labels, at most {len(given)} (raters) expected; correct it."
            )
        return given, []
    if named and length:
        raise InputError(
            f"{path}: {longest} gives its labels without the raters' names, {next(iter(named.values()))} with them, "
            "one way expected; name the raters everywhere, or list them at the top as 'raters'."
        )
    return tuple(named) or tuple(f"rater {k + 1}" for k in range(length)), _rare(counts, named, len(labelled))


def slots(labels: Any, raters: Sequence[str]) -> tuple[str | None, ...]:
    """The file of each rater, ``None`` where an entry has none."""
    if isinstance(labels, dict):
        return tuple(labels.get(rater) for rater in raters)
    return tuple(labels[k] if k < len(labels) else None for k in range(len(raters)))


def _rare(counts: Mapping[str, int], named: Mapping[str, str], entries: int) -> list[str]:
    ordered, places = sorted(counts.values()), len(counts)
    if places < 2:
        return []
    # the median without one rater, from the sorted counts of all: raters may be as many as entries
    rare = []
    for rater, count in counts.items():
        if _RARE * count <= ordered[-1]:
            others = ordered.copy()
            others.remove(count)
            if _RARE * count <= median(others):
                rare.append(rater)
    usual = {rater.casefold(): rater for rater in counts if rater not in rare}
    notes = []
    for rater in rare[:_NOTED]:
        close = difflib.get_close_matches(rater.casefold(), usual, n=1)
        meant = f"; perhaps {usual[close[0]]!r} is meant" if close else ""
        notes.append(
            f"rater {rater!r} is named in {counts[rater]} of {entries} entries (first in {named[rater]}), far fewer "
            f"than the others, and is a rater of its own{meant}; list the names at the top as 'raters' to have any "
            "other refused"
        )
    if len(rare) > _NOTED:
        notes.append(f"{len(rare) - _NOTED} more raters are named in far fewer entries than the others")
    return notes
