"""Raw data -> the prepared data set -> batches on the device."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .prepared.reading import PreparedDataset, PreparedDatasetWriter, load_dataset, network_size

if TYPE_CHECKING:
    from .loading.loader import DeviceLoader, PreparedCases
    from .loading.windows import WindowLoader
    from .prepared.intensity import intensity_rule, intensity_transform

__all__ = [
    "DeviceLoader",
    "PreparedCases",
    "PreparedDataset",
    "PreparedDatasetWriter",
    "WindowLoader",
    "intensity_rule",
    "intensity_transform",
    "load_dataset",
    "network_size",
]


_LAZY = {
    "DeviceLoader": "loading.loader",
    "PreparedCases": "loading.loader",
    "WindowLoader": "loading.windows",
    "intensity_rule": "prepared.intensity",
    "intensity_transform": "prepared.intensity",
}


def __getattr__(name: str) -> Any:
    # These bring in torch and MONAI; preparing data, in many processes, needs neither.
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
