"""Many independent tasks on several processes, with a progress bar, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait
from typing import TypeVar

from ...errors import InputError

__all__ = ["each_result"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_AHEAD = 4  # tasks per process that are handed out: enough that none waits, few enough to hold


def each_result(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    unit: str,
    done: int = 0,
    total: int | None = None,
) -> Iterator[Result]:
    """Yield ``function(task)`` of every task: in order with one worker, otherwise in order of completion.

    Only a few tasks and results per process are held at a time: memory does not grow with their number.

    Args:
        function: can be pickled, as the tasks can.
        tasks: read as they are needed.
        workers: processes; never more than tasks, and 1 stays in this process.
        unit: what is counted on the progress bar (stderr).
        done: tasks that an earlier run has finished; the bar starts there.
        total: number of tasks, where ``tasks`` has no length.

    Raises:
        InputError: a process was killed (most often for memory). Exceptions of ``function`` pass through; the
            tasks not yet begun are dropped then.
    """
    from tqdm import tqdm

    count = len(tasks) if isinstance(tasks, Sized) else total
    if count is not None:
        workers = min(workers, count)
    with tqdm(
        total=None if count is None else done + count, initial=done, desc=unit, unit="", dynamic_ncols=True
    ) as bar:
        if workers <= 1:
            for task in tasks:
                yield function(task)
                bar.update()
            return
        # spawned, not forked: forking a process that has run torch or OpenBLAS threads may hang
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
        running: set[Future[Result]] = set()
        try:
            waiting = iter(tasks)
            while True:
                for task in islice(waiting, _AHEAD * workers - len(running)):
                    running.add(pool.submit(function, task))
                if not running:
                    break
                ready, running = wait_for(running, return_when=FIRST_COMPLETED)
                while ready:
                    yield ready.pop().result()
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
