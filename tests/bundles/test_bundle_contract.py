"""What MONAI and its model zoo ask of a bundle: metadata, properties, network shapes, TorchScript; and the build."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import ignite.distributed as idist
import monai
import pytest
import torch
from bundle_runs import FLAT, NAMES, REPOSITORY, SMALL, SMALL_NETWORK, names_in, small, workflow
from monai.bundle import ckpt_export, verify_metadata, verify_net_in_out
from torch.nn.parallel import DistributedDataParallel

SCHEMA = REPOSITORY / "tools" / "schema" / "meta_schema_20240725.json"


def test_metadata_keeps_to_the_schema(bundle):
    verify_metadata(meta_file="configs/metadata.json", filepath=str(SCHEMA), hash_val=None)
    content = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert content["version"] in content["changelog"] and content["monai_version"] == monai.__version__
    del content["network_data_format"]["inputs"]["image"]["num_channels"]
    (bundle / "wrong.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="num_channels"):
        verify_metadata(meta_file="wrong.json", filepath=str(SCHEMA), hash_val=None)


def test_network_shapes_are_those_of_the_metadata(bundle):
    override = {key: SMALL[key] for key in ("filters", "num_convs")}
    if bundle.name not in FLAT:  # a window of 110 voxels
        override |= {"hidden_channels": [4, 4], "last_channels": 4}
    files = {"meta_file": "configs/metadata.json", "config_file": "configs/inference.json"}
    verify_net_in_out(net_id="network_def", **files, device="cpu", **override)
    with pytest.raises(ValueError, match="channel"):
        verify_net_in_out(net_id="network_def", **files, device="cpu", classes=2, **override)


@pytest.mark.parametrize(
    "files",
    [
        ["train"],
        ["train", "phantom", "demo"],
        ["train", "monai_transforms"],
    ],
    ids="+".join,
)
def test_training_has_all_properties(bundle, data, files):
    if bundle.name not in names_in(files[-1]):
        pytest.skip(f"{bundle.name} has no configs/{files[-1]}.json")
    run = workflow(bundle, files, **small(bundle.name), dataset_dir=str(data))
    run.initialize()
    assert run.check_properties() == []
    assert type(run.trainer).__name__ == "SupervisedTrainer" and len(run.train_dataset) == 30


def test_inference_has_all_properties(trained, tmp_path):
    import nibabel
    import numpy as np

    nibabel.save(nibabel.Nifti1Image(np.zeros((32, 32), np.int16), np.eye(4)), tmp_path / "x.nii.gz")
    run = workflow(trained.folder, "inference", kind="infer", **SMALL_NETWORK, dataset_dir=str(tmp_path))
    run.initialize()
    assert run.check_properties() == []
    volumes = trained.folder.name not in FLAT
    assert run.network_def is not None and run.inferer.num_samples == (20 if volumes else 16)


def test_multi_gpu_overlay_wraps_the_network(bundle, data, monkeypatch, tmp_path):
    for name, value in {
        "RANK": 0,
        "WORLD_SIZE": 1,
        "LOCAL_RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 0,
    }.items():
        monkeypatch.setenv(name, str(value))
    run = workflow(bundle, ["train", "multi_gpu_train"], "training", **small(bundle.name), dataset_dir=str(data))
    run.initialize()
    try:
        assert run.check_properties() == []
        assert isinstance(run.parser.get_parsed_content("network"), DistributedDataParallel)
    finally:
        idist.finalize()  # ignite keeps a picture of the process group of its own


def test_torchscript_export(trained, tmp_path):
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file="models/model.pt",
        meta_file="configs/metadata.json",
        config_file="configs/inference.json",
        **SMALL_NETWORK,
    )
    scripted = torch.jit.load(tmp_path / "model.ts")
    run = workflow(trained.folder, "inference", kind="infer", **SMALL_NETWORK)
    run.initialize()
    network = run.parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load("models/model.pt", weights_only=True))
    image = torch.rand(2, 1, 32, 32) if trained.folder.name in FLAT else torch.rand(1, 4, 35, 35, 35)
    with torch.no_grad():
        for draw in (lambda net: net(image), lambda net: net.sample(image, 3)):
            torch.manual_seed(5)
            expected = draw(network)
            torch.manual_seed(5)
            torch.testing.assert_close(draw(scripted), expected)


def check_build(root) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(root / "tools" / "build_bundles.py"), "--check"], capture_output=True, text=True
    )


def test_the_committed_bundles_are_what_the_fragments_build():
    result = check_build(REPOSITORY)
    assert result.returncode == 0, result.stdout


def test_check_notices_a_changed_and_a_missing_file(tmp_path):
    for part in ("tools/build_bundles.py", "tools/templates", "bundles", "LICENSE"):
        source, target = REPOSITORY / part, tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    assert check_build(tmp_path).returncode == 0
    changed = tmp_path / "bundles" / NAMES[0] / "configs" / "train.json"
    text = changed.read_text()
    changed.write_text(text.replace('"fold": 0', '"fold": 1'))
    (tmp_path / "bundles" / NAMES[1] / "LICENSE").unlink()
    result = check_build(tmp_path)
    assert result.returncode == 1
    assert f"{NAMES[0]}/configs/train.json" in result.stdout and f"{NAMES[1]}/LICENSE" in result.stdout
    assert '"fold": 1' in changed.read_text()  # --check writes nothing


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_complete(name):
    files = {
        p.relative_to(REPOSITORY / "bundles" / name).as_posix() for p in (REPOSITORY / "bundles" / name).rglob("*")
    }
    configs = ("train", "evaluate", "inference", "multi_gpu_train", "phantom", "demo", "metadata")
    configs += ("monai_transforms",) if name in FLAT else ()
    expected = {f"configs/{config}.json" for config in configs}
    expected |= {"configs/logging.conf", "docs/README.md", "docs/data_license.txt", "LICENSE", "models/README.md"}
    assert expected <= files
