"""The prepared data set: its format, writing it unit by unit, splitting it, reading it."""

from __future__ import annotations

from .reading import PreparedDataset, load_dataset, network_size, read_info
from .writer import PreparedDatasetWriter

__all__ = ["PreparedDataset", "PreparedDatasetWriter", "load_dataset", "network_size", "read_info"]
