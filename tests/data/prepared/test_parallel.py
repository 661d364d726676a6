"""Tasks on several processes: every result once, errors pass through, nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aleatoric.data.prepared import parallel
from aleatoric.data.prepared.parallel import each_result
from aleatoric.errors import InputError

SOURCE = str(Path(parallel.__file__).parents[2])


def square(number: int) -> int:
    if number == 13:
        raise InputError("13 found, another number expected; choose one.")
    if number == 99:
        os._exit(1)  # as the kernel does to a process that takes too much memory
    return number * number


def test_in_this_process():
    assert list(each_result(square, [1, 2, 3], 1, "numbers")) == [1, 4, 9]
    assert list(each_result(square, [], 4, "numbers")) == []
    with pytest.raises(InputError, match="13 found"):
        list(each_result(square, [1, 13], 1, "numbers"))


def test_in_two_processes():
    assert sorted(each_result(square, list(range(6)), 2, "numbers")) == [0, 1, 4, 9, 16, 25]
    with pytest.raises(InputError, match="13 found"):
        list(each_result(square, [1, 13, 2, 3], 2, "numbers"))


def test_a_killed_process_is_a_sentence():
    with pytest.raises(InputError, match="a worker process was killed.*fewer --workers"):
        list(each_result(square, [1, 99], 2, "numbers"))


def test_progress_counts_what_was_done_before(capsys):
    list(each_result(square, [1, 2], 1, "numbers", done=3))
    assert "5/5" in capsys.readouterr().err


FOREVER = """
import os, sys, time
from aleatoric.data.prepared.parallel import each_result
def wait(folder):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    time.sleep(120)
if __name__ == "__main__":
    list(each_result(wait, [sys.argv[1]] * 2, 2, "waits"))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this platform")
def test_workers_end_with_a_killed_parent(tmp_path):
    script, folder = tmp_path / "forever.py", tmp_path / "workers"
    script.write_text(FOREVER)
    folder.mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(script), str(folder)], env={**os.environ, "PYTHONPATH": SOURCE}, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(folder.iterdir())) < 2:
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.1)
    finally:
        parent.kill()
        parent.wait()
    workers = [int(path.name) for path in folder.iterdir()]
    deadline = time.monotonic() + 20
    while any(_runs(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _runs(process: int) -> bool:
    """A zombie that nobody waits for (in a container without init) does not run."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc/self").exists()
