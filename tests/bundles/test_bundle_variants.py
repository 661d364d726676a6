"""Overlays that make another model of a bundle (latent families, encoders), and what each model promises."""

from __future__ import annotations

import json
import re

import pytest
import torch
from bundle_runs import (
    FLAT,
    LATENT,
    NAMES,
    REPOSITORY,
    SMALL,
    SMALL_NETWORK,
    copy_bundle,
    execute,
    train,
    workflow,
)
from monai.bundle import ConfigParser, ckpt_export

from aleatoric.errors import input_error_in
from aleatoric.networks.blocks import (
    ConvNeXtEncoder,
    DiagonalNormal,
    Encoder,
    FullNormal,
    LowRankNormalDensity,
    MixtureDensity,
    PlanarFlow,
    ResNetEncoder,
)


def variants(bundle: str) -> list[str]:
    paths = (REPOSITORY / "bundles" / bundle / "configs").glob("*.json")
    return sorted(
        path.stem for path in paths if "variant" in (content := json.loads(path.read_text())) and content["variant"]
    )


VARIANTS = [(bundle, variant) for bundle in NAMES for variant in variants(bundle)]
FLOWS = ["csae_segmentation", "punet_flow_segmentation"]
# Encoders of one small stage for each of the two resolutions: their own sizes are for a GPU
SMALL_ENCODER = {"encoder_filters": [4, 8], "encoder_blocks": [1, 1]}


def network(bundle: str, *overlays: str, **override):
    parser = ConfigParser()
    folder = REPOSITORY / "bundles" / bundle / "configs"
    parser.read_config([str(folder / f"{name}.json") for name in ("inference", *overlays)])
    parser.read_meta(str(folder / "metadata.json"))
    for key, value in override.items():
        parser[key] = value
    return parser.get_parsed_content("network_def")


def families(net) -> tuple:
    parts = [net.prior, net.posterior]
    return tuple((type(part.encoder), type(part.density)) for part in parts)


def test_the_variants_are_those_of_the_papers():
    encoders = ["convnext", "resnet"]
    latents = ["full", "low_rank", "mixture_diagonal", "mixture_full"]
    baselines = ["ensemble", "mc_dropout", "multi_head", "tta"]
    assert [variants(f"{name}_segmentation") for name in ("punet", "spunet")] == [encoders, encoders]
    assert variants("generalized_punet_segmentation") == latents
    assert variants("ssn_3d_segmentation") == ["deepmedic"] and variants("unet_segmentation") == baselines
    assert set(variants("ssn_segmentation")) == {"diagonal"}


@pytest.mark.parametrize("name", NAMES)
def test_the_model_card_states_the_number_of_parameters(name):
    card = (REPOSITORY / "bundles" / name / "docs" / "README.md").read_text()
    stated = re.search(r": ([\d,]+) parameters", card).group(1)
    assert stated == f"{sum(p.numel() for p in network(name).parameters()):,}"


@pytest.mark.parametrize(
    ("bundle", "variant", "prior", "posterior"),
    [
        ("punet_flow", None, (Encoder, DiagonalNormal), (Encoder, PlanarFlow)),
        ("csae", None, (Encoder, PlanarFlow), (Encoder, PlanarFlow)),
        ("generalized_punet", None, (Encoder, MixtureDensity), (Encoder, MixtureDensity)),
        ("generalized_punet", "full", (Encoder, FullNormal), (Encoder, FullNormal)),
        ("generalized_punet", "low_rank", (Encoder, LowRankNormalDensity), (Encoder, LowRankNormalDensity)),
        ("spunet", "resnet", (ResNetEncoder, DiagonalNormal), (ResNetEncoder, DiagonalNormal)),
        ("punet", "convnext", (ConvNeXtEncoder, DiagonalNormal), (ConvNeXtEncoder, DiagonalNormal)),
    ],
)
def test_prior_and_posterior_are_of_the_stated_families(bundle, variant, prior, posterior):
    override = SMALL_NETWORK | (SMALL_ENCODER if prior[0] is not Encoder else {})
    net = network(f"{bundle}_segmentation", *([variant] if variant else []), **override)
    assert families(net) == (prior, posterior)
    assert not {id(p) for p in net.prior.parameters()} & {id(p) for p in net.posterior.parameters()}


@pytest.mark.parametrize(
    ("variant", "latent_dim", "components", "temperature", "family"),
    [
        (None, 2, 9, 0.28, FullNormal),
        ("mixture_full", 2, 9, 0.28, FullNormal),
        ("mixture_diagonal", 4, 5, 0.36, DiagonalNormal),
    ],
)
def test_mixtures_are_those_of_table_3(variant, latent_dim, components, temperature, family):
    net = network("generalized_punet_segmentation", *([variant] if variant else []), filters=[4, 8])
    for density in (net.prior.density, net.posterior.density):
        assert density.latent_dim == latent_dim and isinstance(density.component, family)
        assert (density.num_components, density.temperature) == (components, temperature)


def test_the_csae_has_the_papers_settings():
    config = json.loads((REPOSITORY / "bundles" / "csae_segmentation" / "configs" / "train.json").read_text())
    names = ("kl_weight", "sinkhorn_weight", "sinkhorn_samples", "weight_decay", "learning_rate", "max_gradient_norm")
    assert [config[name] for name in names] == [10, 10, 16, 5e-5, 1e-4, 1]  # Table 4 and appendix B
    parser = ConfigParser(config)
    loss = parser.get_parsed_content("loss")
    assert loss.divergences["kl"].divergence.bases
    transport = loss.divergences["sinkhorn"].divergence
    assert (transport.num_samples, transport.cost.p, transport.cost.diameter) == (16, 2, 100.0)
    assert [type(t).__name__ for t in parser.get_parsed_content("train::preprocessing").transforms] == [
        "BatchRandAffined",
        "BatchRandIntensityd",
    ]
    for task, weight in (("pancreas", 1), ("brain_tumor_1", 1), ("pancreatic_lesion", 10), ("brain_growth", 10)):
        overlay = json.loads((REPOSITORY / f"bundles/csae_segmentation/configs/qubiq_{task}.json").read_text())
        assert overlay.get("sinkhorn_weight", 10) == weight


@pytest.mark.parametrize("name", ["train", "lidc_pickle"])
def test_the_generalized_model_has_its_papers_patience(name):
    """The paper trained on the pickle, and stopped after 20 epochs without improvement (section 4.2)."""
    folder = REPOSITORY / "bundles" / "generalized_punet_segmentation" / "configs"
    config = ConfigParser.load_config_files([str(folder / "train.json"), str(folder / f"{name}.json")])
    assert config["early_stopping_patience"] == 20


@pytest.mark.parametrize("name", NAMES)
def test_the_model_card_states_what_a_sample_costs(name):
    """Only where samples share the backbone's features, and differ in a latent vector or in noise, they cost little."""
    card = (REPOSITORY / "bundles" / name / "docs" / "README.md").read_text()
    cheap = "for little more than" in card
    net = network(name, filters=[4, 8])
    assert cheap == (name in LATENT or hasattr(net, "sample_maps"))


@pytest.mark.parametrize(("bundle", "variant"), VARIANTS)
def test_a_variant_trains_evaluates_and_exports(bundle, variant, prepared, prepared_volumes, tmp_path, monkeypatch):
    folder = copy_bundle(bundle, tmp_path)
    monkeypatch.chdir(folder)
    prepared = prepared if bundle in FLAT else prepared_volumes
    small = SMALL_ENCODER if "encoder" in (folder / "configs" / f"{variant}.json").read_text() else {}
    train(folder, prepared, (variant,), max_epochs=1, **small)
    model = folder / "models" / variant / "model.pt"
    # test-time augmentation is no other model: its weights are the U-Net's
    assert json.loads(model.with_suffix(".json").read_text())["variant"] == (None if variant == "tta" else variant)
    override = {**SMALL_NETWORK, **small}
    execute(folder, ["evaluate", variant], "evaluating", **override, dataset_dir=str(prepared), num_samples=3)
    metrics = json.loads((folder / "eval" / variant / "metrics.json").read_text())["metrics"]
    assert 0 <= metrics["dice_mean_prediction"] <= 1 and 0 <= metrics["ged"] <= 2
    if bundle in LATENT:
        assert 1 <= metrics["effective_rank"] <= SMALL["latent_dim"] and 0 <= metrics["gini_index"] < 1

    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(model),
        meta_file="configs/metadata.json",
        config_file=["configs/inference.json", f"configs/{variant}.json"],
        **override,
    )
    run = workflow(folder, ["inference", variant], kind="infer", **override)
    run.initialize()
    net = run.parser.get_parsed_content("network_def").eval()
    net.load_state_dict(torch.load(model, weights_only=True))
    scripted = torch.jit.load(tmp_path / "model.ts")
    image = torch.rand(2, 1, 32, 32) if bundle in FLAT else torch.rand(1, 4, 35, 35, 35)
    with torch.no_grad():
        torch.manual_seed(5)
        expected = net.sample(image, 3)
        torch.manual_seed(5)
        torch.testing.assert_close(scripted.sample(image, 3), expected)


def test_weights_of_another_variant_are_refused_by_name(prepared, tmp_path, monkeypatch):
    folder = copy_bundle("generalized_punet_segmentation", tmp_path)
    monkeypatch.chdir(folder)
    train(folder, prepared, ("full",), max_epochs=1)
    override = {**SMALL_NETWORK, "dataset_dir": str(prepared), "ckpt_path": str(folder / "models/full/model.pt")}
    with pytest.raises(Exception) as caught:
        execute(folder, ["evaluate", "low_rank"], "evaluating", **override)
    assert "trained with variant full (here low_rank)" in str(input_error_in(caught.value))


@pytest.mark.parametrize("bundle", FLOWS)
def test_an_exported_model_holds_no_flow(bundle, prepared, tmp_path, monkeypatch):
    folder = copy_bundle(bundle, tmp_path)
    monkeypatch.chdir(folder)
    train(folder, prepared, max_epochs=1)
    trained = torch.load("models/model.pt", weights_only=True)
    flows = {name for name in trained if ".flow." in name}
    assert flows  # they are trained
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file="models/model.pt",
        meta_file="configs/metadata.json",
        config_file="configs/inference.json",
        **SMALL_NETWORK,
    )
    exported = {**dict(torch.jit.load(tmp_path / "model.ts").named_parameters())}
    assert not [name for name in exported if "flow" in name]
    assert set(trained) - flows == set(exported) | {name for name in trained if "running" in name or "tracked" in name}


@pytest.mark.parametrize("bundle", FLOWS)
def test_samples_do_not_depend_on_the_flows(bundle):
    net = network(bundle, **SMALL_NETWORK).eval()
    image = torch.rand(2, 1, 16, 16)

    def draw():
        torch.manual_seed(0)
        with torch.no_grad():
            return net.sample(image, 4)

    before = draw()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if ".flow." in name:
                parameter.fill_(7.0)
    torch.testing.assert_close(draw(), before, rtol=0.0, atol=0.0)
