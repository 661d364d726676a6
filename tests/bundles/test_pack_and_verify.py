"""A packed bundle stands alone: where the package is not installed it downloads, loads, trains and answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import import_module
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bundle_runs import FLAT, NAMES, REPOSITORY, copy_bundle

import aleatoric.errors

sys.path.append(str(REPOSITORY / "tools"))
packer, verifier = import_module("pack_bundle"), import_module("verify_bundle")


@pytest.fixture(scope="session")
def archives(tmp_path_factory) -> dict[str, Path]:
    """Each bundle's name -> its packed zip."""
    out = tmp_path_factory.mktemp("dist")
    return {name: packer.pack(REPOSITORY / "bundles" / name, out) for name in NAMES}


@pytest.fixture
def packed(archives, tmp_path, prepared):
    """One unpacked bundle to plant a defect in, with a small network, and data as the check 'prepare' leaves it."""
    result = verifier.unpack(archives["spunet_segmentation"], tmp_path)
    for name in ("train", "inference"):
        edit(result.root / "configs" / f"{name}.json", '"filters": [32, 64, 128, 256]', '"filters": [4, 8]')
        edit(result.root / "configs" / f"{name}.json", '"num_convs": 3', '"num_convs": 1')
    shutil.copytree(prepared, result.work / "phantom")
    return result


def version_of(name: str) -> str:
    return json.loads((REPOSITORY / "bundles" / name / "configs" / "metadata.json").read_text())["version"]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old}"
    path.write_text(text.replace(old, new))


def edit_json(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# --- packing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"_target_": "aleatoric.data.load_dataset"}', '{"_target_": "scripts.aleatoric.data.load_dataset"}'),
        ('["$from aleatoric.handlers import x"]', '["$from scripts.aleatoric.handlers import x"]'),
        ('["$from aleatoric import outputs"]', '["$from scripts.aleatoric import outputs"]'),
        ('["$import aleatoric.outputs as o"]', '["$import scripts.aleatoric.outputs as o"]'),
        ('{"a": "$f(aleatoric.outputs.Y, \\"q\\")"}', '{"a": "$f(scripts.aleatoric.outputs.Y, \\"q\\")"}'),
        # not the module: people, paths, other modules, what is vendored already
        ('{"authors": "aleatoric developers"}', None),
        ('{"a": "$open(\'aleatoric.txt\')", "b": "$x.aleatoric.y"}', None),
        ('{"_target_": "other.aleatoric.X"}', None),
        ('["$from scripts.aleatoric.handlers import x"]', None),
    ],
)
def test_vendored_names(text, expected):
    assert packer.vendor_config(text) == (expected or text)


def test_a_zip_holds_the_bundle_and_the_package(archives):
    for name, archive in archives.items():
        assert archive.name == f"{name}_v{version_of(name)}.zip"
        with zipfile.ZipFile(archive) as content:
            files = {path.removeprefix(f"{name}/"): content.read(path) for path in content.namelist()}
        bundle, package = REPOSITORY / "bundles" / name, REPOSITORY / "src" / "aleatoric"
        assert files["LICENSE"] == (bundle / "LICENSE").read_bytes()
        # nothing but names differs
        for config in (bundle / "configs").glob("*.json"):
            assert files[f"configs/{config.name}"].decode().replace("scripts.aleatoric", "aleatoric") == (
                config.read_text(encoding="utf-8")
            )
        for source in package.rglob("*.py"):
            inside = f"scripts/aleatoric/{source.relative_to(package).as_posix()}"
            if inside.startswith("scripts/aleatoric/apps/"):
                assert inside not in files
            else:
                code = files[inside].decode().replace("python -m scripts.aleatoric ", "aleatoric ")
                assert code == source.read_text(encoding="utf-8")
        card = files["docs/README.md"].decode()
        assert "python -m scripts.aleatoric prepare phantom" in card and not re.search(r"^aleatoric ", card, re.M)
        assert "geomloss==" in card and archive.name in card


def test_one_source_gives_the_same_bytes(archives, tmp_path):
    bundle = copy_bundle("spunet_segmentation", tmp_path)
    for left in ("models/checkpoint_epoch=1.pt", "models/model.pt", "eval/x.txt", "data/x.npy", "configs/.hidden"):
        (bundle / left).parent.mkdir(exist_ok=True)
        (bundle / left).write_bytes(b"left by a run")
    for path in bundle.rglob("*"):
        os.utime(path, (0, 1_000_000_000))
    again = packer.pack(bundle, tmp_path / "dist")
    assert again.read_bytes() == archives["spunet_segmentation"].read_bytes()
    assert [path.name for path in again.parent.iterdir()] == [again.name]
    with zipfile.ZipFile(packer.pack(bundle, tmp_path / "dist", weights=True)) as content:
        assert content.read(f"{bundle.name}/models/model.pt") == b"left by a run"


def test_an_interrupted_packing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(KeyboardInterrupt):
        packer.pack(REPOSITORY / "bundles" / NAMES[0], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spoil", "options", "words"),
    [
        (lambda root: shutil.rmtree(root), [], "has no configs/metadata.json"),
        (lambda root: (root / "scripts" / "aleatoric").mkdir(parents=True), [], "is packed already"),
        (lambda root: None, ["--weights"], "train first"),
    ],
    ids=["no bundle", "packed", "no weights"],
)
def test_what_cannot_be_packed(spoil, options, words, tmp_path, monkeypatch, capsys):
    root = copy_bundle("punet_segmentation", tmp_path)
    spoil(root)
    monkeypatch.setattr(sys, "argv", ["pack_bundle.py", str(root), "--out", str(tmp_path / "out"), *options])
    assert packer.main() == 2
    assert re.fullmatch(rf"error: .*{words}.*\.\n", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


# --- verifying -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_bundle_passes_every_check(archives, name, tmp_path, capsys):
    errors = sys.modules["aleatoric.errors"]
    assert verifier.verify(verifier.unpack(archives[name], tmp_path)) == {}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"ok {check}" for check in verifier.CHECKS]
    # this process is as it was
    assert sys.modules["aleatoric.errors"] is errors is aleatoric.errors
    assert not any(module.startswith("scripts.aleatoric") for module in sys.modules)


def planted(name: str, check: str, words: str):
    """Mark a function as a defect that ``check`` must find and describe with ``words``."""
    return lambda function: DEFECTS.append(pytest.param(function, check, words, id=f"{check}: {name}"))


DEFECTS: list = []
METADATA, INFERENCE, TRAIN = "configs/metadata.json", "configs/inference.json", "configs/train.json"


@planted("a file less", "files", "missing: docs/data_license.txt")
def _(root):
    (root / "docs/data_license.txt").unlink()


@planted("a file more", "files", "does not belong in a bundle: eval/x.txt")
def _(root):
    (root / "eval").mkdir()
    (root / "eval/x.txt").write_text("")


@planted("a cache", "files", "does not belong in a bundle: scripts/__pycache__/x.pyc")
def _(root):
    (root / "scripts/__pycache__").mkdir()
    (root / "scripts/__pycache__/x.pyc").write_text("")


@planted("broken JSON", "files", "configs/demo.json is no JSON")
def _(root):
    (root / "configs/demo.json").write_text('{"a": 1,}')


@planted("another licence", "licence", "is not the Apache License")
def _(root):
    (root / "LICENSE").write_text("MIT License")


@planted("no licence of the data", "licence", "data_license.txt is empty")
def _(root):
    (root / "docs/data_license.txt").write_text("\n")


@planted("not in the changelog", "version", "99.0.0 is missing in changelog")
def _(root):
    edit_json(root / METADATA, lambda content: content.update(version="99.0.0"))


@planted("behind the changelog", "version", "changelog goes to 99.10.0")
def _(root):
    edit_json(root / METADATA, lambda content: content["changelog"].update({"99.10.0": "newer", "99.9.0": "new"}))


@planted("one that is imported", "packages", "imports geomloss, which no package in required")
def _(root):
    edit_json(root / METADATA, lambda content: content["required_packages_version"].pop("geomloss"))


@planted("a loose version", "packages", "scipy has version '>=1', expected one like 1.2.3")
def _(root):
    edit_json(root / METADATA, lambda content: content["required_packages_version"].update(scipy=">=1"))


@planted("not installed", "packages", "no-such-package, which required_packages_version names, is not installed here")
def _(root):
    edit_json(root / METADATA, lambda content: content["required_packages_version"].update({"no-such-package": "1.0"}))


@planted("none", "packages", "required_packages_version is missing")
def _(root):
    edit_json(root / METADATA, lambda content: content.pop("required_packages_version"))


@planted("a field less", "metadata", "'num_channels' is a required property")
def _(root):
    edit_json(root / METADATA, lambda content: content["network_data_format"]["inputs"]["image"].pop("num_channels"))


@planted("another schema", "metadata", "expected meta_schema_20240725.json")
def _(root):
    edit(root / METADATA, "meta_schema_20240725", "meta_schema_20220324")


@planted("a target", "imports", "configs/train.json names the package outside scripts: aleatoric.losses")
def _(root):
    edit(root / TRAIN, '"scripts.aleatoric.losses', '"aleatoric.losses')


@planted("an expression", "imports", "configs/demo.json names the package outside scripts: $from aleatoric")
def _(root):
    edit(root / "configs/demo.json", "scripts.aleatoric", "aleatoric")


@planted("an absolute import", "imports", "imports the package by its absolute name")
def _(root):
    edit(root / "scripts/aleatoric/engines.py", "import annotations\n", "import annotations\nimport aleatoric\n")


@planted("an absolute import", "network", "import of aleatoric halted")
def _(root):
    edit(root / "scripts/aleatoric/outputs.py", "import annotations\n", "import annotations\nimport aleatoric\n")


@planted("other channels", "network", "output channel number `1` doesn't match: `2`")
def _(root):
    edit_json(root / METADATA, lambda content: content["network_data_format"]["outputs"]["pred"].update(num_channels=2))


@planted("no pred", "network", "network_data_format has no 'pred' under outputs")
def _(root):
    edit(root / METADATA, '"pred": {', '"answer": {')


@planted("a file less", "prepare", "phantom.anatomy")
def _(root):
    (root / "scripts/aleatoric/data/phantom/anatomy.py").unlink()


@planted("no loss", "train", "loss")
def _(root):
    edit_json(root / TRAIN, lambda content: content.pop("loss"))


@planted("a name that is not MONAI's", "train", "configs/train.json lacks val_key_metric")
def _(root):
    edit(root / TRAIN, '"key_metric"', '"best_metric"')
    for part in ("validate", "sampled"):
        edit(root / TRAIN, f"@{part}::key_metric", f"@{part}::best_metric")


@planted("a target that is not there", "train", "Nowhere")
def _(root):
    edit(root / TRAIN, "scripts.aleatoric.losses.KLDivergence", "scripts.aleatoric.losses.Nowhere")


@planted("no inferer", "inference", "inferer")
def _(root):
    edit_json(root / INFERENCE, lambda content: content.pop("inferer"))


@planted("nothing to run", "inference", "configs/inference.json has no 'run'")
def _(root):
    edit_json(root / INFERENCE, lambda content: content.pop("run"))


@planted("weights of another network", "torchscript", "Error(s) in loading state_dict")
def _(root):
    torch.save({"model": {"weight": torch.zeros(1)}}, root / "models/model.pt")


@planted("another answer", "torchscript", "the exported network differs")
def _(root):
    edit(
        root / "scripts/aleatoric/networks/nets/probabilistic_unet.py",
        "        return self.sample(image, 1, 1.0, 0)[:, 0]",
        "        shift = 0.0\n        if torch.jit.is_scripting():\n            shift = 1.0\n"
        "        return shift + self.sample(image, 1, 1.0, 0)[:, 0]",
    )


@pytest.mark.parametrize(("plant", "check", "words"), DEFECTS)
def test_a_check_finds_its_defect(packed, plant, check, words, capsys):
    if check == "prepare":
        shutil.rmtree(packed.work / "phantom")
    plant(packed.root)
    failed = verifier.verify(packed, (check,))
    assert words in failed.get(check, "passed")
    assert "\n" not in failed[check] and capsys.readouterr().out == f"FAIL {check}: {failed[check]}\n"


def test_the_cheap_checks_pass_on_what_defects_are_planted_in(packed):
    checks = ("archive", "files", "licence", "version", "packages", "metadata", "imports", "network", "torchscript")
    assert verifier.verify(packed, checks) == {}


def test_zips_that_are_no_bundle(archives, tmp_path, monkeypatch, capsys):
    def run(path: Path) -> int:
        monkeypatch.setattr(sys, "argv", ["verify_bundle.py", str(path)])
        return verifier.main()

    renamed = tmp_path / "other.zip"
    shutil.copy(archives["punet_segmentation"], renamed)
    assert f"expected punet_segmentation_v{version_of('punet_segmentation')}.zip" in verifier.verify(
        verifier.unpack(renamed, tmp_path / "a"), ("archive",)
    ).get("archive", "")
    with zipfile.ZipFile(renamed, "a") as content:
        content.writestr("loose.txt", "")
    assert run(renamed) == 1 and "expected one folder" in capsys.readouterr().out
    (tmp_path / "text.zip").write_text("no zip")
    assert run(tmp_path / "text.zip") == 2 and "neither a zip nor" in capsys.readouterr().err
    assert run(tmp_path / "nowhere.zip") == 2


# --- without the package ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory) -> Path:
    """An interpreter with all that this one has but the package, which is here as a link to the sources."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    if not python.exists():
        pytest.skip("the layout of this platform's virtual environments is another")
    site = next((folder / "lib").glob("python*/site-packages"))
    # a folder named in a .pth is searched, the .pth files in it (the link to the sources) are not read
    site.joinpath("others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    found = run(python, "-c", "import monai, aleatoric", cwd=folder, check=False)
    assert "No module named 'aleatoric'" in found.stderr, found.stderr
    return python


def run(python: Path, *words: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    result = subprocess.run([str(python), *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 or not check, result.stderr[-3000:]
    return result


LOAD = """
import sys
sys.path.insert(0, sys.argv[1])
import monai.bundle, torch
network = monai.bundle.load(
    {name!r}, bundle_dir={folder!r}, device="cpu", args_file={{"filters": [4, 8], "num_convs": 1}}
)
stored = torch.load({folder!r} + "/" + {name!r} + "/models/model.pt", weights_only=True)
assert all(torch.equal(value, stored[key]) for key, value in network.state_dict().items())
print(type(network).__module__, tuple(network.sample(torch.rand(*{image}), 3).shape))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_zip_works_where_the_package_is_not_installed(archives, name, bare_python, tmp_path):
    url = archives[name].as_uri()
    run(bare_python, "-m", "monai.bundle", "download", "--name", name, "--url", url, "--bundle_dir", ".", cwd=tmp_path)
    bundle = tmp_path / name
    assert (bundle / "configs" / "train.json").is_file()
    flat = name in FLAT
    phantom = ("--patches", "20") if flat else ("--brain", "6")
    run(bare_python, "-m", "scripts.aleatoric", "prepare", "phantom", "data/phantom", *phantom, cwd=bundle)
    small = ("--filters", "[4,8]", "--num_convs", "1")
    configs = "['configs/train.json','configs/phantom.json']"
    training = (bare_python, "-m", "monai.bundle", "run", "training", "--config_file", configs, *small)
    windows = () if flat else ("--output_size", "15", "--windows_per_case", "1", "--val_windows_per_case", "1")
    run(*training, "--max_epochs", "1", "--batch_size", "8", *windows, cwd=bundle)
    stored = torch.load(bundle / "models" / "model.pt", weights_only=True)
    settings = json.loads((bundle / "models" / "model.json").read_text())
    assert settings["filters"] == [4, 8] and all(torch.isfinite(v).all() for v in stored.values())

    image = (1, 1, 32, 32) if flat else (1, 4, 35, 35, 35)
    load = LOAD.format(name=name, folder=str(tmp_path), image=image)
    said = run(bare_python, "-c", load, bundle, cwd=tmp_path).stdout
    config = json.loads((bundle / "configs" / "inference.json").read_text())["network_def"]["_target_"]
    assert config.startswith("scripts.aleatoric.networks.nets")  # the vendored class, which draws three samples
    shape = "(1, 3, 1, 32, 32)" if flat else "(1, 3, 4, 15, 15, 15)"
    assert re.search(rf"scripts\.aleatoric\.networks\.nets\.\w+ {re.escape(shape)}", said)

    (bundle / "data" / "images").mkdir()
    scan = np.random.default_rng(0).normal(-500 if flat else 500, 100, (40, 36, 2) if flat else (40, 36, 20, 4))
    scan = (scan if flat else np.pad(scan[4:-4, 4:-4], ((4, 4), (4, 4), (0, 0), (0, 0)))).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(scan, np.eye(4)), bundle / "data" / "images" / "scan.nii.gz")
    run(bare_python, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json", *small, cwd=bundle)
    mean = nibabel.load(bundle / "eval" / "scan_mean.nii.gz").get_fdata()
    assert mean.shape[:2] == scan.shape[:2] and mean.min() >= 0 and mean.max() <= 1 and mean.std() > 0
