"""The model zoo's checks on a packed bundle, without a network and without the installed package.

    python tools/verify_bundle.py dist/punet_segmentation_v0.1.0.zip
    python tools/verify_bundle.py bundles/punet_segmentation            packs it into a temporary folder first

A line for each check, ``ok`` or ``FAIL`` with the reason; exit code 1 if any failed. Everything runs on a temporary
copy, with ``import aleatoric`` made impossible. Where no weights are packed, an untrained network stands in for them.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata as installed
from pathlib import Path
from typing import Any, NamedTuple

from pack_bundle import pack

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "tools" / "schema" / "meta_schema_20240725.json"
CONFIGS = ("train", "evaluate", "inference", "multi_gpu_train")
FILES = (
    "LICENSE",
    "docs/README.md",
    "docs/data_license.txt",
    "models/README.md",
    "configs/metadata.json",
    "configs/logging.conf",
    *(f"configs/{name}.json" for name in CONFIGS),
    "scripts/__init__.py",
    "scripts/aleatoric/__init__.py",
    "scripts/aleatoric/__main__.py",
)
TOP = {"LICENSE", "configs", "docs", "models", "scripts", "large_files.yml"}
# Declared in fields of their own, or a part of Python.
ELSEWHERE = {"torch": "pytorch_version", "monai": "monai_version", "numpy": "numpy_version"}
# Imported by name only where a user asks for what needs them.
OPTIONAL = {"mlflow", "optuna", "monailabel"}


class Packed(NamedTuple):
    """What is checked."""

    root: Path  #: unpacked bundle, a copy
    work: Path  #: an empty folder for what the checks make
    archive: Path | None  #: the zip it came from

    @property
    def metadata(self) -> dict[str, Any]:
        return json.loads((self.root / "configs" / "metadata.json").read_text(encoding="utf-8"))


class Found(Exception):
    """What is wrong with the bundle."""


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise Found(reason)


@contextmanager
def standing_alone(root: Path) -> Iterator[None]:
    """``scripts`` is that of ``root``, as where Python started there, and ``import aleatoric`` fails."""

    def ours() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] in ("aleatoric", "scripts")]

    before = {name: sys.modules.pop(name) for name in ours()}
    hook, bytecode = sys.excepthook, sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # the copy stays as it was packed
    sys.modules["aleatoric"] = None  # type: ignore[assignment]  # Python's own way to say: not to be imported
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for name in ours():
            del sys.modules[name]
        sys.modules.update(before)
        sys.dont_write_bytecode = bytecode
        sys.excepthook = hook  # a bundle's `initialize` sets it


def check_archive(packed: Packed) -> str:
    """<name>_v<version>.zip with one folder <name>."""
    if packed.archive is None:
        return "a folder, no zip"
    expected = f"{packed.root.name}_v{packed.metadata['version']}.zip"
    require(packed.archive.name == expected, f"the zip is called {packed.archive.name}, expected {expected}")
    return expected


def check_files(packed: Packed) -> str:
    missing = [name for name in FILES if not (packed.root / name).is_file()]
    require(not missing, f"missing: {', '.join(missing)}")
    files = [path.relative_to(packed.root) for path in packed.root.rglob("*") if path.is_file()]
    junk = [
        str(path)
        for path in files
        if path.parts[0] not in TOP
        or any(part.startswith(".") or part in ("__pycache__", "apps") for part in path.parts)
        or path.name.startswith("checkpoint_")
    ]
    require(not junk, f"does not belong in a bundle: {', '.join(sorted(junk)[:3])}")
    for path in sorted((packed.root / "configs").glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Found(f"configs/{path.name} is no JSON: {error}") from error
    return f"{len(files)} files"


def check_licence(packed: Packed) -> str:
    text = (packed.root / "LICENSE").read_text(encoding="utf-8")
    require("Apache License" in text and "Version 2.0" in text, "LICENSE is not the Apache License, Version 2.0")
    require(bool(packed.metadata.get("copyright", "").strip()), "configs/metadata.json names no copyright")
    data = (packed.root / "docs" / "data_license.txt").read_text(encoding="utf-8")
    require(bool(data.strip()), "docs/data_license.txt is empty")
    return "Apache 2.0, and the data's"


def check_version(packed: Packed) -> str:
    version, changes = packed.metadata.get("version", ""), packed.metadata.get("changelog", {})
    require(bool(re.fullmatch(r"\d+\.\d+\.\d+", version)), f"version is {version!r}, expected digits as in 0.1.0")
    require(version in changes, f"version {version} is missing in changelog")
    newest = max(changes, key=lambda name: tuple(int(part) for part in re.findall(r"\d+", name)))
    require(version == newest, f"version is {version}, but changelog goes to {newest}")
    return version


def third_party(folder: Path) -> set[str]:
    """Top names of all modules that the sources under ``folder`` import, anywhere in them."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - OPTIONAL


def check_packages(packed: Packed) -> str:
    """All that the code imports is declared with a version, and what is declared is installed."""
    meta = packed.metadata
    declared: dict[str, str] = meta.get("required_packages_version", {})
    require(bool(declared), "required_packages_version is missing or empty in configs/metadata.json")
    others, provided = [], set()
    for name, version in declared.items():
        require(bool(re.fullmatch(r"\d+(\.\w+)+", version)), f"{name} has version {version!r}, expected one like 1.2.3")
        try:
            here = installed.version(name)
        except installed.PackageNotFoundError as error:
            raise Found(f"{name}, which required_packages_version names, is not installed here") from error
        others += [f"{name} {here}"] if here != version else []
        provided |= {file.parts[0].removesuffix(".py") for file in installed.files(name) or ()}
    for module in sorted(third_party(packed.root / "scripts")):
        if module in ELSEWHERE:
            require(bool(meta.get(ELSEWHERE[module])), f"{ELSEWHERE[module]} is missing in configs/metadata.json")
        else:
            require(module in provided, f"the code imports {module}, which no package in required_packages_version has")
    return f"{len(declared)} declared" + (f"; other versions here: {', '.join(others)}" if others else "")


def check_metadata(packed: Packed) -> str:
    from monai.bundle import verify_metadata

    named = str(packed.metadata.get("schema", "")).rpartition("/")[2]
    require(named == SCHEMA.name, f"metadata keeps to the schema {named!r}, expected {SCHEMA.name}")
    verify_metadata(meta_file=str(packed.root / "configs" / "metadata.json"), filepath=str(SCHEMA), hash_val=None)
    return SCHEMA.name


def check_imports(packed: Packed) -> str:
    """Neither a config nor the code names the package anywhere but in ``scripts``."""
    for path in sorted((packed.root / "configs").glob("*.json")):
        for text in _strings(json.loads(path.read_text(encoding="utf-8"))):
            outside = re.search(r"(?<!scripts\.)\baleatoric\b", text)
            if outside and (text.startswith("$") or re.fullmatch(r"\w+(\.\w+)+", text)):
                raise Found(f"configs/{path.name} names the package outside scripts: {text}")
    absolute = third_party(packed.root / "scripts") & {"aleatoric", "scripts"}
    require(not absolute, "code in scripts/aleatoric imports the package by its absolute name")
    return "all in scripts"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def check_network(packed: Packed) -> str:
    """The network's channels and type are those that the metadata name (``image`` in, ``pred`` out)."""
    from monai.bundle import verify_net_in_out

    formats = packed.metadata["network_data_format"]
    for side, key in (("inputs", "image"), ("outputs", "pred")):
        require(key in formats[side], f"network_data_format has no {key!r} under {side}")
    with standing_alone(packed.root):
        verify_net_in_out(
            net_id="network_def",
            meta_file=str(packed.root / "configs" / "metadata.json"),
            config_file=str(packed.root / "configs" / "inference.json"),
            device="cpu",
            bundle_root=str(packed.root),
        )
    return "image in, pred out"


def check_prepare(packed: Packed) -> str:
    """The bundle makes its own data."""
    flat = len(packed.metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]) == 2
    words = ["prepare", "phantom", *(("--patches", "20") if flat else ("--brain", "6")), "--workers", "1"]
    run = subprocess.run(
        [sys.executable, "-B", "-m", "scripts.aleatoric", *words, str(packed.work / "phantom")],
        cwd=packed.root,
        capture_output=True,
        text=True,
    )
    require(run.returncode == 0, (run.stderr.strip().splitlines() or ["no word"])[-1])
    return "20 patches of the phantom" if flat else "6 simulated brains"


def check_train(packed: Packed) -> str:
    data = packed.work / "phantom"
    require(data.is_dir(), "no data to look at, see the check 'prepare'")
    return _properties(packed, "train", dataset_dir=str(data), device="$torch.device('cpu')")


def check_inference(packed: Packed) -> str:
    import nibabel
    import numpy as np

    images = packed.work / "images"
    images.mkdir(exist_ok=True)
    channels = packed.metadata["network_data_format"]["inputs"]["image"]["num_channels"]
    shape = (128, 128, 2) if channels == 1 else (128, 128, 2, channels)
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), images / "image.nii.gz")
    return _properties(packed, "inference", dataset_dir=str(images), device="$torch.device('cpu')")


def _properties(packed: Packed, config: str, **override: Any) -> str:
    """MONAI can make every object that a workflow of this kind must have."""
    from monai.bundle import ConfigWorkflow

    with standing_alone(packed.root):
        workflow = ConfigWorkflow(
            config_file=str(packed.root / "configs" / f"{config}.json"),
            workflow_type=config,
            logging_file=False,
            bundle_root=str(packed.root),
            output_dir=str(packed.work / "eval"),
            **override,
        )
        workflow.initialize()
        missing = workflow.check_properties()
        require(workflow.run_id in workflow.parser, f"configs/{config}.json has no {workflow.run_id!r}")
    require(not missing, f"configs/{config}.json lacks {', '.join(missing or ())}")
    return f"{len(workflow.properties)} properties"


def check_torchscript(packed: Packed) -> str:
    """The checkpoint loads and exports; the exported network, read back, gives the same answer."""
    import torch
    from monai.bundle import ConfigParser, ckpt_export

    configs, checkpoint = packed.root / "configs", packed.root / "models" / "model.pt"
    with standing_alone(packed.root):
        parser = ConfigParser()
        parser.read_config(str(configs / "inference.json"))
        network = parser.get_parsed_content("network_def").eval()
        if not checkpoint.exists():
            checkpoint = packed.work / "model.pt"
            torch.save({"model": network.state_dict()}, checkpoint)
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
        key = "model" if "model" in stored else ""
        network.load_state_dict(stored[key] if key else stored)
        ckpt_export(
            net_id="network_def",
            filepath=str(packed.work / "model.ts"),
            ckpt_file=str(checkpoint),
            meta_file=str(configs / "metadata.json"),
            config_file=str(configs / "inference.json"),
            key_in_ckpt=key,
            bundle_root=str(packed.root),
        )
    scripted = torch.jit.load(packed.work / "model.ts", map_location="cpu").eval()
    given = packed.metadata["network_data_format"]["inputs"]["image"]
    image = torch.rand(2, given["num_channels"], *given["spatial_shape"])
    answers = []
    with torch.no_grad():
        for net in (network, scripted):
            torch.manual_seed(0)  # an answer is one draw
            answers.append(net(image))
    torch.testing.assert_close(answers[1], answers[0], msg=lambda text: f"the exported network differs: {text}")
    return "the same answer after export"


CHECKS: dict[str, Callable[[Packed], str]] = {
    "archive": check_archive,
    "files": check_files,
    "licence": check_licence,
    "version": check_version,
    "packages": check_packages,
    "metadata": check_metadata,
    "imports": check_imports,
    "network": check_network,
    "prepare": check_prepare,
    "train": check_train,
    "inference": check_inference,
    "torchscript": check_torchscript,
}


def unpack(source: Path, work: Path) -> Packed:
    """A copy of the packed bundle in ``work``; a bundle's folder is packed first.

    Raises:
        Found: the zip has not one folder at its top.
        OSError, ValueError: ``source`` is not there, no zip and no bundle.
    """
    archive = pack(source, work / "dist") if source.is_dir() else source
    if not zipfile.is_zipfile(archive):
        raise ValueError(f"{source} is neither a zip nor a bundle's folder; give one of them.")
    with zipfile.ZipFile(archive) as content:
        tops = sorted({name.split("/")[0] for name in content.namelist()})
        require(len(tops) == 1, f"the zip has {', '.join(tops[:4]) or 'nothing'} at its top, expected one folder")
        content.extractall(work / "unpacked")
    (work / "made").mkdir()
    return Packed(work / "unpacked" / tops[0], work / "made", archive)


def reason(error: BaseException) -> str:
    """One line: of the error where it began, since MONAI wraps what a component raised in its own."""
    while error.__cause__ is not None and not isinstance(error, Found):
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return (lines[0] if isinstance(error, Found) or not lines else f"{type(error).__name__}: {lines[0]}") or repr(error)


def verify(packed: Packed, checks: tuple[str, ...] = tuple(CHECKS)) -> dict[str, str]:
    """Run checks, print their lines, and return the reasons of those that failed."""
    failed = {}
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # MONAI tells each of its arguments
    try:
        for name in checks:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    print(f"ok {name}: {CHECKS[name](packed)}", flush=True)
            except Exception as error:  # whatever a bundle's own code raises is a finding
                failed[name] = reason(error)
                print(f"FAIL {name}: {failed[name]}", flush=True)
    finally:
        logging.disable(disabled)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a packed bundle (zip), or the folder of a bundle")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        try:
            packed = unpack(args.bundle, Path(work))
        except Found as found:
            print(f"FAIL archive: {found}")
            return 1
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 1 if verify(packed) else 0


if __name__ == "__main__":
    sys.exit(main())
