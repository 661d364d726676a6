"""The papers' tables, our evaluations beside them, and what differs between the two."""

from __future__ import annotations

from .ours import Ours, gather
from .protocol import DATASETS, differences
from .published import Published, published_rows

__all__ = ["DATASETS", "Ours", "Published", "differences", "gather", "published_rows"]
