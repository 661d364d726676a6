"""How the benchmarks time: alternatives in turn, in one process, the least disturbed call of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


def best_seconds(
    functions: Mapping[str, Callable[[], object]], repeats: int = 5, device: str = "cpu"
) -> dict[str, float]:
    """The best time of each function, called in turn after a warm-up each.

    On a shared machine the least disturbed call is the fair one, and calling in turn lets a slow minute hit all alike.
    """
    best = dict.fromkeys(functions, float("inf"))
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device != "cpu":
                torch.cuda.synchronize()
            if repeat:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def print_ratios(times: Mapping[str, float], reference: str, note: str = "") -> None:
    """A line per function: its time and how many times faster than the reference it is."""
    width = max(map(len, times))
    for name, seconds in times.items():
        print(
            f"{name:<{width}}  {seconds:8.3f} s  {times[reference] / seconds:6.2f}x{note if name == reference else ''}"
        )
