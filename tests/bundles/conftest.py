"""What the tests of the bundles share: data made once, a bundle trained once."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from bundle_runs import FLAT, NAMES, copy_bundle, train, write_prepared
from monai.bundle import ConfigWorkflow


class Trained(NamedTuple):
    """A bundle that was trained, once for all tests."""

    folder: Path
    run: ConfigWorkflow


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """The folder of a prepared data set of 12 patients."""
    return write_prepared(tmp_path_factory.mktemp("prepared") / "discs")


@pytest.fixture(scope="session")
def prepared_volumes(tmp_path_factory) -> Path:
    """The folder of a prepared data set of 12 patients, in 3D: four channels, four classes, one rater."""
    folder = tmp_path_factory.mktemp("prepared") / "balls"
    shape = {"size": 20, "raters": 1, "channels": 4, "classes": 4, "spatial_dims": 3}
    return write_prepared(folder, **shape, intensity_window=(-10000, 10000), normalisation="brats")


@pytest.fixture
def data(request, prepared, prepared_volumes) -> Path:
    """The prepared data set that fits the test's ``bundle`` or ``trained``."""
    trained = "trained" in request.fixturenames
    name = request.getfixturevalue("trained").folder.name if trained else request.getfixturevalue("bundle").name
    return prepared if name in FLAT else prepared_volumes


@pytest.fixture(params=NAMES)
def bundle(request, tmp_path, monkeypatch) -> Path:
    """Each bundle's folder in turn, as a user has it, and the working directory."""
    folder = copy_bundle(request.param, tmp_path)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def one_bundle(tmp_path, monkeypatch) -> Path:
    """As ``bundle``, where one of them says enough."""
    folder = copy_bundle("spunet_segmentation", tmp_path)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def _trained(tmp_path_factory, prepared, prepared_volumes) -> Callable[[str], Trained]:
    @functools.cache
    def once(name: str) -> Trained:
        folder = copy_bundle(name, tmp_path_factory.mktemp("trained"))
        before = Path.cwd()
        os.chdir(folder)
        try:
            return Trained(folder, train(folder, prepared if name in FLAT else prepared_volumes))
        finally:
            os.chdir(before)

    return once


@pytest.fixture(params=NAMES)
def trained(request, _trained, monkeypatch) -> Trained:
    """Each bundle in turn, trained; the folder is the working directory, tests write elsewhere."""
    monkeypatch.chdir(_trained(request.param).folder)
    return _trained(request.param)


@pytest.fixture(params=FLAT)
def flat_trained(request, _trained, monkeypatch) -> Path:
    """The folder of each bundle of 2D images in turn, trained."""
    monkeypatch.chdir(_trained(request.param).folder)
    return _trained(request.param).folder


@pytest.fixture
def one_trained(_trained, monkeypatch) -> Path:
    """As ``flat_trained``, where one of them says enough."""
    monkeypatch.chdir(_trained("spunet_segmentation").folder)
    return _trained("spunet_segmentation").folder


@pytest.fixture(autouse=True)
def _plain_process(monkeypatch):
    """What a bundle's ``initialize`` does to its process ends with the test."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    yield
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic
