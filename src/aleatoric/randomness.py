"""Noise that follows from a seed alone and leaves torch's own random state as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["ResumedNoise", "seeded"]


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Within it, what is drawn on ``device`` (and on the CPU) follows from the seed."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class ResumedNoise:
    """Noise of one seed for several stretches of code: each goes on where the one before it ended.

    What is drawn between two of them changes nothing, and is not changed.

    Args:
        device: where noise is drawn (the CPU's is covered too).
        seed: None: torch's own random state, which everybody shares.

    Example:
        >>> noise = ResumedNoise(torch.device("cpu"), 3)
        >>> drawn = []
        >>> for _ in range(2):
        ...     with noise.resumed():
        ...         drawn.append(torch.randn(20))
        ...     _ = torch.randn(7)  # somebody else's
        >>> with seeded(torch.device("cpu"), 3):
        ...     bool((torch.stack(drawn) == torch.stack([torch.randn(20), torch.randn(20)])).all())
        True
    """

    def __init__(self, device: torch.device, seed: int | None) -> None:
        self.device = device
        self.seed = seed
        self._states: tuple[Tensor, Tensor | None] | None = None

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """One stretch."""
        if self.seed is None:
            yield
            return
        on_gpu = self.device.type == "cuda"
        with seeded(self.device, self.seed):
            if self._states is not None:
                torch.set_rng_state(self._states[0])
                if self._states[1] is not None:
                    torch.cuda.set_rng_state(self._states[1], self.device)
            yield
            self._states = torch.get_rng_state(), torch.cuda.get_rng_state(self.device) if on_gpu else None
