"""Pack a bundle as the MONAI model zoo does, complete in itself: it runs where the package is not installed.

    python tools/pack_bundle.py bundles/punet_segmentation --out dist     dist/punet_segmentation_v0.1.0.zip

The package goes into the bundle's scripts/ folder, and what names it (targets, expressions, commands in the docs)
names it there. The same sources give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "aleatoric"
VENDORED = "scripts.aleatoric"
# What a bundle ships; whatever runs left beside it (data, eval, checkpoints of every epoch) stays behind.
SHIPPED = ("LICENSE", "configs", "docs", "models/README.md", "large_files.yml")
WEIGHTS = ("models/model.pt", "models/model.ts")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can name

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_MODULE = re.compile(r"(?<![\w.'])aleatoric(?=[.\s])")
_COMMAND = re.compile(r"(?<![\w.])aleatoric (?=prepare\b)")
_THIS_COPY = """## This copy

`scripts/aleatoric` is the package itself: nothing of it need be installed. Install what it uses (on
Python 3.10 without the versions):

```
pip install {requirements}
```

Start Python in this folder, or put this folder on Python's path (`PYTHONPATH`, `sys.path`): MONAI looks for `scripts`
there. That goes for `monai.bundle.load` too, which needs a training first:

```
python -m monai.bundle download --name {name} --url file:///FOLDER/{name}_v{version}.zip --bundle_dir .
monai.bundle.load("{name}", bundle_dir=".", args_file={{"latent_dim": 6}})
```

`args_file` repeats the settings of the training that are not the config's own. Without them MONAI takes over the
weights that fit and leaves the others untrained; it logs how many of them it took.

"""


def vendor_config(text: str) -> str:
    """A config's text with every target and expression of the package pointing into ``scripts``."""

    def rewrite(match: re.Match[str]) -> str:
        literal = match.group()
        return _MODULE.sub(VENDORED, literal) if literal.startswith('"$') else vendor_target(literal)

    def vendor_target(literal: str) -> str:
        return re.sub(r'^"aleatoric(?=(\.\w+)+"$)', f'"{VENDORED}', literal)

    return _STRING.sub(rewrite, text)


def vendor_commands(text: str) -> str:
    """Docs and messages: ``aleatoric prepare`` is no command where the package is not installed."""
    return _COMMAND.sub(f"python -m {VENDORED} ", text)


def requirements(metadata: dict) -> str:
    """The words after ``pip install``."""
    versions = {
        "torch": metadata["pytorch_version"],
        "monai": metadata["monai_version"],
        "numpy": metadata["numpy_version"],
        "fire": "",  # of `python -m monai.bundle` itself
        **metadata["required_packages_version"],
    }
    return " ".join(f"{name}=={version}" if version else name for name, version in versions.items())


def model_card(text: str, name: str, metadata: dict) -> str:
    """The model card with a section on what is in this copy, above the others."""
    head, mark, rest = vendor_commands(text).partition("## ")
    here = _THIS_COPY.format(requirements=requirements(metadata), name=name, version=metadata["version"])
    return head + here + mark + rest


def package_files() -> dict[str, bytes]:
    """Path under ``scripts`` -> content. Without ``apps``: those programs install the package."""
    files = {"scripts/__init__.py": b""}
    for path in PACKAGE.rglob("*"):
        parts = path.relative_to(PACKAGE).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if not path.is_file() or hidden or parts[0] == "apps" or path.suffix == ".pyc":
            continue
        content = path.read_bytes()
        if path.suffix == ".py":
            content = vendor_commands(content.decode("utf-8")).encode("utf-8")
        files["/".join(("scripts", PACKAGE.name, *parts))] = content
    return files


def bundle_files(bundle: Path, weights: bool = False) -> dict[str, bytes]:
    """Path in the packed bundle -> content.

    Raises:
        FileNotFoundError: ``bundle`` is no bundle, or ``weights`` are asked for and there are none.
        ValueError: it is a packed bundle already.
    """
    if not (bundle / "configs" / "metadata.json").is_file():
        raise FileNotFoundError(f"{bundle} has no configs/metadata.json; give the folder of a bundle.")
    if (bundle / "scripts" / PACKAGE.name).exists():
        raise ValueError(f"{bundle} is packed already; give the folder in bundles/ that it was made from.")
    if weights and not (bundle / WEIGHTS[0]).is_file():
        raise FileNotFoundError(f"{bundle} has no {WEIGHTS[0]}; train first, or pack without --weights.")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    files = package_files()
    for entry in SHIPPED + (WEIGHTS if weights else ()):
        top = bundle / entry
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            name = path.relative_to(bundle).as_posix()
            if not path.is_file() or path.name.startswith("."):
                continue
            content = path.read_bytes()
            if name.startswith("configs/") and path.suffix == ".json":
                content = vendor_config(content.decode("utf-8")).encode("utf-8")
            elif name == "docs/README.md":
                content = model_card(content.decode("utf-8"), bundle.name, metadata).encode("utf-8")
            elif name.startswith("docs/") and path.suffix in (".md", ".txt"):
                content = vendor_commands(content.decode("utf-8")).encode("utf-8")
            files[name] = content
    return files


def pack(bundle: Path, out: Path, weights: bool = False) -> Path:
    """Write ``<name>_v<version>.zip`` into ``out`` and return its path; the file is whole or not there."""
    bundle = bundle.resolve()
    files = bundle_files(bundle, weights)
    version = json.loads(files["configs/metadata.json"])["version"]
    target = out / f"{bundle.name}_v{version}.zip"
    out.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=out, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
            for name in sorted(files):
                info = zipfile.ZipInfo(f"{bundle.name}/{name}", EPOCH)
                info.compress_type, info.create_system = zipfile.ZIP_DEFLATED, 3
                info.external_attr = 0o100644 << 16
                archive.writestr(info, files[name], compresslevel=9)
        os.chmod(part, 0o644)  # mkstemp's files are for their owner alone
        os.replace(part, target)
    except BaseException:
        os.unlink(part)
        raise
    return target


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the zip (default: dist)")
    parser.add_argument("--weights", action="store_true", help="pack models/model.pt (and model.ts) too")
    args = parser.parse_args()
    try:
        path = pack(args.bundle, args.out, args.weights)
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
