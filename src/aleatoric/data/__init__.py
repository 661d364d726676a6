"""Raw data -> the prepared data set -> batches on the device."""

from __future__ import annotations

from .prepared import PreparedDataset, PreparedDatasetWriter, load_dataset

__all__ = ["PreparedDataset", "PreparedDatasetWriter", "load_dataset"]
