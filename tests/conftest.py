"""What every test shares: threads, seeds, and where real data lies, if it does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several test processes share the cores: one thread each, for the programs that tests start too. The variable is
    # read when torch is imported, so this stands above that import.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]
# The same examples in every run, so that a change is what makes a test fail; `pytest --hypothesis-profile explore`
# looks for others.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("repeatable")
sys.path.insert(0, str(REPOSITORY / "tools"))  # tests read what tools/simulated writes


@pytest.fixture(autouse=True)
def _seeds() -> Iterator[None]:
    """A test's draws do not depend on the tests before it; MONAI's determinism flags do not leak into the next one."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - code under test (MONAI, scipy) draws from the global generator
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real images (sub-folder ``lidc`` and others): never in the repository, so tests skip without it."""
    named = os.environ.get("ALEATORIC_REAL_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; ALEATORIC_REAL_DATA names another folder")
    return folder
