"""Batches read from the memory maps by a thread that runs ahead, for a section that does not fit on the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["READ_AHEAD", "read_ahead", "read_rows"]

READ_AHEAD = 3  # batches that are read, or being read, while the consumer works on another


class Read(Protocol):
    """What is read of an array for one batch, in new memory of the host; :func:`read_rows` is one."""

    def __call__(self, array: np.ndarray, rows: np.ndarray, pin: bool = False) -> Tensor: ...


def read_ahead(
    arrays: Mapping[str, np.ndarray],
    batches: Iterable[np.ndarray],
    device: torch.device,
    read: Read | None = None,
) -> Generator[dict[str, Tensor], None, None]:
    """Rows of the arrays, batch by batch, on the device.

    One thread reads; its errors are raised here. It is gone when the last batch was handed out or the iterator is
    closed, whichever comes first. On CUDA the copies run on a stream of their own, from pinned memory, and neither
    the reading thread nor the consumer waits for the device.

    Args:
        arrays: name -> (n, ...) array.
        batches: rows of each batch, (B,) int64, or whatever ``read`` wants to know of it.
        device: where the batches go.
        read: what is read of each array; default: :func:`read_rows`.

    Yields:
        name -> (B, ...) tensor of the array's type, the consumer's own.
    """
    upload = _Upload(device) if device.type == "cuda" else None

    take = read or read_rows

    def read_batch(rows: np.ndarray) -> dict[str, Tensor] | tuple[dict[str, Tensor], Any]:
        if upload is None:
            return {name: take(array, rows).to(device) for name, array in arrays.items()}
        with torch.cuda.stream(upload.stream):  # makes its device this thread's, before memory is pinned
            return upload({name: take(array, rows, pin=True) for name, array in arrays.items()})

    todo = iter(batches)
    pool = ThreadPoolExecutor(1, thread_name_prefix="aleatoric-read-ahead")
    try:
        pending: deque[Future[Any]] = deque(pool.submit(read_batch, rows) for rows in islice(todo, READ_AHEAD))
        while pending:
            batch = pending.popleft().result()
            rows = next(todo, None)
            if rows is None:
                # Engines stop at the last batch and ask no further: the thread must end without being told.
                pool.shutdown(wait=False)
            else:
                pending.append(pool.submit(read_batch, rows))
            yield batch if upload is None else upload.hand_over(*batch)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_rows(array: np.ndarray, rows: np.ndarray, pin: bool = False) -> Tensor:
    """(B, ...) rows of the array, in new memory of the host, pinned for copies to a CUDA device if asked for."""
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    batch = torch.empty((len(rows), *array.shape[1:]), dtype=dtype, pin_memory=pin)
    # One call, in which numpy lets go of the interpreter lock once. All rows exist: "clip" is for reading without a
    # second buffer.
    np.take(array, rows, axis=0, out=batch.numpy(), mode="clip")
    return batch


class _Upload:
    """Copies to a CUDA device beside its computation.

    The memory of both sides is the caching allocators': pinned memory is used again only after the copies out of it
    are done, and ``record_stream`` does the same for the consumer's use of the copies.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def __call__(self, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Any]:
        """In the reading thread, with :attr:`stream` current: begin the copies; the event that says they are done."""
        copies = {name: value.to(self.stream.device, non_blocking=True) for name, value in batch.items()}
        return copies, self.stream.record_event()

    def hand_over(self, copies: dict[str, Tensor], done: Any) -> dict[str, Tensor]:
        """In the consumer's thread: its stream, not the host, waits for the copies."""
        current = torch.cuda.current_stream(self.stream.device)
        current.wait_event(done)
        for value in copies.values():
            value.record_stream(current)
        return copies
