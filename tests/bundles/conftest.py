"""What the tests of the bundles share: data made once, a bundle trained once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from bundle_runs import NAMES, copy_bundle, train, write_prepared


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """The folder of a prepared data set of 12 patients."""
    return write_prepared(tmp_path_factory.mktemp("prepared") / "discs")


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
def _trained(tmp_path_factory, prepared) -> dict[str, Path]:
    folders = {}
    for name in NAMES:
        folders[name] = copy_bundle(name, tmp_path_factory.mktemp("trained"))
        train(folders[name], prepared)
    return folders


@pytest.fixture(params=NAMES)
def trained(request, _trained, monkeypatch) -> Path:
    """Each bundle's folder in turn, trained; tests write elsewhere."""
    monkeypatch.chdir(_trained[request.param])
    return _trained[request.param]


@pytest.fixture
def one_trained(_trained, monkeypatch) -> Path:
    """As ``trained``, where one of them says enough."""
    monkeypatch.chdir(_trained["spunet_segmentation"])
    return _trained["spunet_segmentation"]


@pytest.fixture(autouse=True)
def _plain_process(monkeypatch):
    """What a bundle's ``initialize`` does to its process ends with the test."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    yield
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic
