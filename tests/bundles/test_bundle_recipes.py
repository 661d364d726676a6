"""Each bundle of the SSN paper's comparison trains as its authors did: the numbers of their code, from the configs."""

from __future__ import annotations

from functools import reduce

import pytest
import torch
from bundle_runs import REPOSITORY
from monai.bundle import ConfigParser

from aleatoric.networks.blocks import ForegroundMask


def recipe(name: str, *overlays: str, **override) -> ConfigParser:
    """The training config with its overlays; nothing in it is built before it is asked for."""
    folder = REPOSITORY / "bundles" / f"{name}_segmentation" / "configs"
    parser = ConfigParser()
    parser.read_config([str(folder / f"{config}.json") for config in ("train", *overlays)])
    parser.read_meta(str(folder / "metadata.json"))
    parser["device"] = "cpu"
    for key, value in override.items():
        parser[key] = value
    return parser


def found(parser: ConfigParser, expected: dict) -> dict:
    """What the config has at the ids of ``expected``; a dot leads on to an attribute of what is built there."""

    def value(key: str):
        name, *path = key.split(".")
        return reduce(getattr, path, parser.get_parsed_content(name))

    return {key: value(key) for key in expected}


def settings(parser: ConfigParser) -> tuple[type, dict]:
    """The optimizer's class and what it was given; it holds all parameters of the network."""
    optimizer = parser.get_parsed_content("optimizer")
    (group,) = optimizer.param_groups
    assert len(group["params"]) == len(list(parser.get_parsed_content("network").parameters()))
    return type(optimizer), optimizer.defaults


# Adam with 1e-3, batches of 12 and no weight decay: the SSN paper's for all three on LIDC
LIDC_FILTERS = [32, 64, 128, 192, 192, 192, 192]
ON_LIDC = {"filters": LIDC_FILTERS, "num_convs": 3, "train::dataloader::batch_size": 12}
ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0}
# the random maps of one step, before the logarithm of their mean likelihood
DRAWS = {"loss.likelihood.num_samples": 20, "loss.likelihood.chunk_size": None}


@pytest.mark.parametrize(
    ("name", "optimizer", "given", "expected"),
    [
        (
            "ssn",
            torch.optim.Adam,
            ADAM,
            ON_LIDC
            | DRAWS
            | {
                "loss.likelihood.antithetic": False,
                "network.density.rank": 10,
                "network.foreground": None,
                "density_layers": 3,
            },
        ),
        (
            "phiseg",
            torch.optim.Adam,
            ADAM,
            ON_LIDC
            | {
                "latent_dims": [2] * 5,
                "norm": ["batch", {"eps": 1e-3, "momentum": 0.01}],
                # of kl_0, the coarsest map, to kl_4: 4 to the power of the level
                "loss.weights": {"kl_0": 256, "kl_1": 64, "kl_2": 16, "kl_3": 4, "kl_4": 1},
            },
        ),
        ("unet", torch.optim.Adam, ADAM, ON_LIDC | {"loss.weights": {}}),
        (
            "ssn_3d",
            torch.optim.RMSprop,
            {"lr": 1e-3, "alpha": 0.9, "momentum": 0.6, "weight_decay": 1e-4, "centered": False},
            DRAWS
            | {
                "loss.likelihood.antithetic": True,
                "filters": [30, 30, 40, 40, 40, 40, 50, 50],
                "factors": [1, 3, 5],
                "hidden_channels": [250, 250],
                "dropout": 0.5,
                "network.density.rank": 10,
                "network.foreground.__class__": ForegroundMask,
                "train::dataloader::batch_size": 10,
                "num_samples": 20,
            },
        ),
    ],
    ids=["ssn", "phiseg", "unet", "ssn_3d"],
)
def test_it_trains_as_its_authors_did(name, optimizer, given, expected):
    parser = recipe(name)
    kind, defaults = settings(parser)
    assert kind is optimizer and {key: defaults[key] for key in given} == given
    assert found(parser, expected) == expected


@pytest.mark.parametrize(("override", "size"), [({}, 110), ({"output_size": 60, "batch_size": 4}, 140)])
def test_windows_of_volumes_are_the_papers(override, size):
    parser = recipe("ssn_3d", **override)
    for stage in ("train", "validate"):
        expected = {"window_size": [size] * 3, "margin": 40, "foreground": 0.5}
        expected |= {"batch_size": override.get("batch_size", 10)}
        assert found(parser, {f"{stage}::dataloader::{key}": None for key in expected}) == {
            f"{stage}::dataloader::{key}": value for key, value in expected.items()
        }
    assert parser.get_parsed_content("train::dataloader::windows_per_case") == 20
    assert parser.get_parsed_content("network").margin == 40


@pytest.mark.parametrize(
    ("name", "variant", "expected"),
    [
        ("ssn", "diagonal", DRAWS | {"network.density.rank": 0}),
        (
            "unet",
            "mc_dropout",
            {"network.backbone.dropout": 0.5, "network.backbone.shared_blocks": 4, "dropout_blocks": 3},
        ),
        ("unet", "ensemble", {"network.networks.__len__": 4, "num_samples": 4}),
        (
            "unet",
            "multi_head",
            {"network.num_heads": 16, "network.head.conv.out_channels": 16, "num_samples": 16}
            | {"loss.likelihood.epsilon": 0.05},
        ),
        ("unet", "tta", {"network.noise_std": 0.05, "num_samples": 16}),
        # averaged over the voxels, else the weight decay weighs less than the authors'
        ("ssn_3d", "deepmedic", {"loss.likelihood.pixel_mean": True, "num_samples": 2}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_variants_have_the_numbers_that_their_protocol_states(name, variant, expected):
    def called(value):
        return value() if callable(value) else value

    parser = recipe(name, variant)
    kind, defaults = settings(parser)
    assert {key: called(value) for key, value in found(parser, expected).items()} == expected
    # a baseline is trained as the model that it is compared with
    base_kind, base = settings(recipe(name))
    assert kind is base_kind and defaults == base
