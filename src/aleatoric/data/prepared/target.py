"""Where a prepared data set is written to: whether it may be, and whether what lies there can be continued."""

from __future__ import annotations

import contextlib
import errno
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError

__all__ = ["CannotWriteError", "check_partial", "check_target", "check_writable", "plain_os_errors"]

_SHOWN = 5  # differences that are named
_LONGEST = 160  # letters of a value; of a longer one both ends: paths differ at theirs


def check_target(out_dir: Path, overwrite: bool) -> None:
    """Refuse a place that is taken. Raises InputError."""
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return
    if not (out_dir / "dataset.json").is_file():
        only = ", and --overwrite replaces such a set only" if overwrite else ""
        raise InputError(
            f"{out_dir} exists already and is no prepared data set (it has no dataset.json), a new folder "
            f"expected{only}; choose another one."
        )
    if not overwrite:
        raise InputError(
            f"{out_dir} exists already, a new folder expected; choose another one, or give --overwrite to replace "
            "this prepared data set."
        )


def check_partial(partial: Path, units: Path, signature: Path, begun: Mapping[str, Any]) -> None:
    """Refuse a partial folder that a preparation with other options began, or that is none.

    Args:
        partial: the folder.
        units: where its units lie.
        signature: the file in it that says with what it was begun.
        begun: what this run would write there.

    Raises:
        InputError: it names each difference, with both values.
    """
    if not signature.is_file():
        # it ends with the preparation, so it must be one's own; killed at its begin, it holds no unit yet
        if any(e != units and e.suffix != ".tmp" for e in partial.glob("*")) or any(units.glob("*")):
            raise InputError(
                f"{partial} is no preparation that was interrupted (it has no {signature.name}), no such folder "
                "expected; move it away or choose another name."
            )
        return
    try:
        earlier = json.loads(signature.read_text(encoding="utf-8"))
        if not isinstance(earlier, dict):
            raise ValueError(f"a {type(earlier).__name__}, not an object")
    except ValueError as error:
        raise InputError(f"{signature} is damaged ({error}); delete that folder and repeat the command.") from error
    found = list(_differences(earlier, begun))
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise InputError(
            f"{partial} was begun with other settings than these ({'; '.join(found[:_SHOWN])}{more}), the same "
            "expected to continue it; repeat that command or delete the folder."
        )


def check_writable(path: Path) -> None:
    """Refuse a place whose nearest existing folder cannot be written. Nothing is left behind. Raises InputError."""
    folder = next((parent for parent in path.absolute().parents if parent.exists()), path.absolute().parent)
    with plain_os_errors(path), tempfile.TemporaryFile(dir=folder):
        pass


class CannotWriteError(InputError):
    """The disk is full or the place may not be written: no fault of what was to be written."""


@contextlib.contextmanager
def plain_os_errors(path: Path, full: str = "free some and repeat the command") -> Iterator[None]:
    """An OSError as a sentence: ``path`` cannot be written, or the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CannotWriteError(f"no space left for {path}, room for all of it expected; {full}.") from error
        raise CannotWriteError(
            f"{path} cannot be written ({error.strerror or error}), a writable folder expected; choose another one or "
            "change its permissions."
        ) from error


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterator[str]:
    for key, expected in now.items():
        found = earlier.get(key)
        if found == expected:
            continue
        if isinstance(found, dict) and isinstance(expected, dict):
            place = within if key == "options" else f"{within}{key}."
            yield from _differences(found, {**dict.fromkeys(found), **expected}, place)
        else:
            yield f"{within}{key}: {_short(found)} found, {_short(expected)} expected"


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"
