"""Noise that follows from a seed alone and leaves torch's own random state as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seeded"]


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Within it, what is drawn on ``device`` (and on the CPU) follows from the seed."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
