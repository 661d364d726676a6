"""What a user sees of an error: the sentence alone, and of Ctrl-C too."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        ("InputError('two found, one expected.')", "error: two found, one expected."),
        ("RuntimeError('in MONAI') from InputError('two found.')", "error: two found."),
        ("KeyboardInterrupt", "interrupted: a training goes on from its last checkpoint with --resume True"),
    ],
)
def test_the_sentence_alone(raised, seen):
    code = f"from aleatoric.errors import InputError, report_plainly\nreport_plainly()\nraise {raised}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode != 0
    assert result.stderr.splitlines() == [seen]


def test_a_defect_of_ours_keeps_its_trace():
    code = "from aleatoric.errors import report_plainly\nreport_plainly()\n1 / 0"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Traceback" in result.stderr and "ZeroDivisionError" in result.stderr
