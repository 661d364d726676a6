"""Samples that come piece after piece: what must hold while one is made, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

__all__ = ["within"]

Piece = TypeVar("Piece")


def within(context: Callable[[], AbstractContextManager[Any]], pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Make each piece in a context of its own, which is left before the consumer has the piece.

    A ``with`` around a ``yield`` would hold for the consumer too, until it asks for the next piece.

    Example:
        >>> import torch
        >>> made = (torch.is_grad_enabled() for _ in range(2))
        >>> [(inside, torch.is_grad_enabled()) for inside in within(torch.no_grad, made)]
        [(False, True), (False, True)]
    """
    while True:
        with context():
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece
        del piece  # or it would live on while the next one is made
