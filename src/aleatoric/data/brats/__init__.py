"""BraTS: brain tumours in four MR sequences, one segmentation each.

:mod:`.tree` finds the cases, :mod:`.volumes` reads and normalises them, :mod:`.command` makes the prepared data set,
:mod:`.transforms` does the same to an image at inference.
"""

from __future__ import annotations
