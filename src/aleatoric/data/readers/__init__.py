"""Files of images and masks, in any format, to arrays: every failure is a sentence that names the file."""

from __future__ import annotations

from .scans import LabelMap, Scan, find_kind, read_label, read_scan

__all__ = ["LabelMap", "Scan", "find_kind", "read_label", "read_scan"]
