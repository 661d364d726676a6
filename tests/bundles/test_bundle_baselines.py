"""The overlays of the deterministic U-Net: what each makes of the network, and whose weights it takes."""

from __future__ import annotations

import json

import pytest
import torch
from bundle_runs import REPOSITORY, SMALL_NETWORK, copy_bundle, execute, train, workflow

from aleatoric.errors import input_error_in
from aleatoric.losses import BestMemberCrossEntropy, MemberCrossEntropy
from aleatoric.networks.nets import (
    AugmentedInferenceNetwork,
    DeterministicSegmentationNetwork,
    EnsembleNetwork,
    MonteCarloDropoutNetwork,
    MultiHeadNetwork,
)

BUNDLE = "unet_segmentation"
KINDS = {
    None: DeterministicSegmentationNetwork,
    "mc_dropout": MonteCarloDropoutNetwork,
    "ensemble": EnsembleNetwork,
    "multi_head": MultiHeadNetwork,
    "tta": AugmentedInferenceNetwork,
}


def configs(kind: str, variant: str | None) -> list[str]:
    return [kind, *([variant] if variant else [])]


def parsed(name: str, kind: str = "inference", variant: str | None = None, folder=None, **override):
    """One object of the bundle's config."""
    folder = folder or REPOSITORY / "bundles" / BUNDLE
    run = workflow(folder, configs(kind, variant), kind="infer", **SMALL_NETWORK, **override)
    return run.parser.get_parsed_content(name)


@pytest.mark.parametrize("variant", KINDS)
def test_an_overlay_makes_the_stated_network(variant):
    torch.manual_seed(0)
    network = parsed("network_def", variant=variant).eval()
    assert type(network) is KINDS[variant]
    count = parsed("num_samples", variant=variant)
    assert count == {"ensemble": 4, "multi_head": 16}.get(variant, 16)
    samples = network.sample(torch.rand(1, 1, 16, 16), count)[0]
    different = len({tuple(sample.flatten().tolist()) for sample in samples})
    assert different == (1 if variant is None else count)


def test_classes_multiply_the_heads():
    network = parsed("network_def", variant="multi_head", classes=3, num_members=5)
    assert network.sample(torch.rand(1, 1, 16, 16), 5).shape == (1, 5, 3, 16, 16)


def test_only_heads_choose_their_raters():
    for variant in KINDS:
        expected = BestMemberCrossEntropy if variant == "multi_head" else MemberCrossEntropy
        assert type(parsed("loss", "train", variant).likelihood) is expected


def test_augmentation_takes_the_weights_of_the_unet(prepared, tmp_path, monkeypatch):
    folder = copy_bundle(BUNDLE, tmp_path)
    monkeypatch.chdir(folder)
    train(folder, prepared, max_epochs=1)
    override = {**SMALL_NETWORK, "dataset_dir": str(prepared)}
    run = execute(folder, configs("evaluate", "tta"), "evaluating", **override)
    assert run.parser.get_parsed_content("ckpt_path") == f"{folder}/models/model.pt"
    assert json.loads((folder / "eval" / "tta" / "metrics.json").read_text())["metrics"]
    network = run.parser.get_parsed_content("network_def")
    stored = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert type(network) is AugmentedInferenceNetwork
    assert all(torch.equal(value, stored[key]) for key, value in network.state_dict().items())
    # also of one that was trained on another data set
    path = parsed("ckpt_path", variant="tta", folder=folder, ckpt_dir=f"{folder}/models/kohl/tta")
    assert path == f"{folder}/models/kohl/model.pt"
    # what was trained with the overlay comes first
    (folder / "models" / "tta").mkdir()
    (folder / "models" / "tta" / "model.pt").touch()
    assert parsed("ckpt_path", variant="tta", folder=folder) == f"{folder}/models/tta/model.pt"
    for overlay, sentence in (("ensemble", "variant None (here ensemble)"), ("mc_dropout", "(here mc_dropout)")):
        with pytest.raises(Exception) as caught:
            ckpt_path = str(folder / "models" / "model.pt")
            execute(folder, configs("evaluate", overlay), "evaluating", **override, ckpt_path=ckpt_path)
        assert sentence in str(input_error_in(caught.value))


def test_another_number_of_members_is_refused(prepared, tmp_path, monkeypatch):
    folder = copy_bundle(BUNDLE, tmp_path)
    monkeypatch.chdir(folder)
    train(folder, prepared, ("multi_head",), max_epochs=1)
    override = {**SMALL_NETWORK, "dataset_dir": str(prepared), "num_members": 5}
    with pytest.raises(Exception) as caught:
        execute(folder, configs("evaluate", "multi_head"), "evaluating", **override)
    assert "num_members 16 (here 5)" in str(input_error_in(caught.value))
