"""Tables of numbers, a row per epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import InputError
from .files import write_atomically

__all__ = ["read_table", "write_table"]


def read_table(path: Path) -> list[dict[str, float]]:
    """The rows of a CSV of numbers; empty cells are left out.

    Raises:
        InputError: a cell that is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no table of numbers ({error}); remove it, a training writes it again.") from error


def write_table(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write rows, whole or not at all; a column for every name that occurs."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    write_atomically(path, table.getvalue())
