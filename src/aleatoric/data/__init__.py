"""Raw data -> the prepared data set -> batches on the device."""

from __future__ import annotations

from .loader import DeviceLoader, PreparedCases
from .prepared import PreparedDataset, PreparedDatasetWriter, load_dataset

__all__ = ["DeviceLoader", "PreparedCases", "PreparedDataset", "PreparedDatasetWriter", "load_dataset"]
