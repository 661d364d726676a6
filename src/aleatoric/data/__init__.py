"""Raw data -> the prepared data set -> batches on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .prepared import PreparedDataset, PreparedDatasetWriter, load_dataset, network_size

if TYPE_CHECKING:
    from .loader import DeviceLoader, PreparedCases

__all__ = [
    "DeviceLoader",
    "PreparedCases",
    "PreparedDataset",
    "PreparedDatasetWriter",
    "load_dataset",
    "network_size",
]


def __getattr__(name: str) -> Any:
    # The loader brings in torch and MONAI; preparing data, in many processes, needs neither.
    if name in ("DeviceLoader", "PreparedCases"):
        from . import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
