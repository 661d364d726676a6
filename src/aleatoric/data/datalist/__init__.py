"""A user's own multi-rater images: a MONAI datalist with a list of label files per image."""

from __future__ import annotations

from .command import prepare_datalist

__all__ = ["prepare_datalist"]
