"""Many independent tasks on several processes, with a progress bar, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from ..errors import InputError

__all__ = ["each_result"]

Task = TypeVar("Task")
Result = TypeVar("Result")


def each_result(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, unit: str, done: int = 0
) -> Iterator[Result]:
    """Yield ``function(task)`` of every task: in order with one worker, otherwise in order of completion.

    Args:
        function: can be pickled, as the tasks can.
        workers: processes; never more than tasks, and 1 stays in this process.
        unit: what is counted on the progress bar (stderr).
        done: tasks that an earlier run has finished; the bar starts there.

    Raises:
        InputError: a process was killed (most often for memory). Exceptions of ``function`` pass through; the
            tasks not yet begun are dropped then.
    """
    from tqdm import tqdm

    workers = min(workers, len(tasks))
    with tqdm(total=done + len(tasks), initial=done, desc=unit, unit="", dynamic_ncols=True) as bar:
        if workers <= 1:
            for task in tasks:
                yield function(task)
                bar.update()
            return
        # spawned, not forked: forking a process that has run torch or OpenBLAS threads may hang
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
        try:
            for future in as_completed([pool.submit(function, task) for task in tasks]):
                yield future.result()
                bar.update()
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process was killed, perhaps for lack of memory; run the command again with fewer --workers, "
                "what is finished is kept."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """In a worker: Ctrl-C is the parent's to handle, and a parent that was killed takes its workers along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
