"""A bundle's network and objective, trained on fresh scenes: no image comes twice, none can be learned by heart."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.optimizers import WarmupCosineSchedule
from torch import Tensor, nn
from tqdm import tqdm

from aleatoric.errors import InputError, NotFiniteError
from aleatoric.losses import NegativeLogLikelihood
from known_answer.law import SIZE, Scenes, draw, image, random_scenes, support

__all__ = ["Model", "available", "build", "sample", "terms", "train"]

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
ENCODERS = ("convnext", "resnet")  # variants of the encoder, not of the latent space
_LIKELIHOOD = NegativeLogLikelihood()
_RECORDS = 20  # of the terms in a training


class Model(NamedTuple):
    """What is trained, and how its bundle says that it is."""

    network: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    max_gradient_norm: float | None
    config: dict[str, Any]  # every id of the bundle's config that the three rest on


def available() -> list[str]:
    """Every bundle of 2D images, and every variant of it but other encoders as ``bundle:variant``."""
    names = []
    for name in sorted(folder.name.removesuffix("_segmentation") for folder in BUNDLES.glob("*_segmentation")):
        configs = sorted((BUNDLES / f"{name}_segmentation" / "configs").glob("*.json"))
        overlays = {path.stem: json.loads(path.read_text()) for path in configs}
        if overlays["train"]["spatial_dims"] != 2:
            continue
        variants = [key for key, value in overlays.items() if isinstance(value.get("variant"), str)]
        names += [name, *(f"{name}:{variant}" for variant in variants if variant not in ENCODERS)]
    return names


def build(name: str, overrides: dict[str, Any], device: torch.device) -> Model:
    """Network, loss and optimiser as the training config of a bundle makes them.

    Args:
        name: ``bundle``, ``bundle:variant``, and any id of the config behind it: ``spunet:kl_weight=1``.
        overrides: ids of the config -> values; those in ``name`` win. An id that a config does not have is left out.
            A hierarchy of latent maps is made so deep that its first map is one pixel, as published, with one block
            where it has three.

    Raises:
        InputError: a bundle, variant or id that is not there.
    """
    bundle, *parts = name.split(":")
    folder = BUNDLES / f"{bundle}_segmentation" / "configs"
    if not (folder / "train.json").exists():
        raise InputError(f"found no bundle {bundle!r}, expected one of {', '.join(available())}; name one of them.")
    variants = [part for part in parts if "=" not in part]
    for variant in variants:
        if not (folder / f"{variant}.json").exists():
            raise InputError(f"{bundle} has no variant {variant!r}; name one of {', '.join(available())}.")
    parser = ConfigParser()
    parser.read_config([str(folder / f"{stem}.json") for stem in ("train", *variants)])
    given = dict(part.split("=", 1) for part in parts if "=" in part)
    for key, text in given.items():
        if key not in parser:
            raise InputError(
                f"found {key}={text} behind {bundle}, whose training has no {key}; see configs/train.json."
            )
    if "latent_levels" in parser:
        overrides = overrides | {"num_blocks": 1, "filters": _down_to_a_pixel(overrides.get("filters", [16]))}
    parser.update({key: value for key, value in overrides.items() if key in parser} | {"device": device})
    parser.update({key: _value(text) for key, text in given.items()})
    network, loss, optimizer = (parser.get_parsed_content(key) for key in ("network", "loss", "optimizer"))
    clip = parser.get_parsed_content("max_gradient_norm") if "max_gradient_norm" in parser else None
    used = {key: value for key, value in parser.get().items() if key in parser.ref_resolver.resolved_content}
    config = json.loads(json.dumps(used, default=str))
    return Model(network, loss.to(device), optimizer, clip, config)


def train(
    model: Model, name: str, steps: int, batch: int, raters: int, seed: int, device: torch.device
) -> list[dict[str, float]]:
    """Train in place, with a warm-up over 5 % of the steps and a cosine to zero; the course of the objective's terms.

    Scenes and raters follow from the seed alone, so every model sees the same.

    Returns:
        records: ``step``, ``seconds``, and each of :func:`terms` on scenes that are not trained on.

    Raises:
        NotFiniteError: a term is not finite.
    """
    network, loss, optimizer, max_norm, _ = model
    generator = torch.Generator(device).manual_seed(seed)
    schedule = WarmupCosineSchedule(optimizer, warmup_steps=max(1, steps // 20), t_total=steps)
    held_out = random_scenes(128, torch.Generator(device).manual_seed(seed + 10_000))
    history, begin = [], time.perf_counter()
    with tqdm(range(1, steps + 1), desc=name, unit="step", mininterval=1.0) as bar:
        for step in bar:
            scenes = random_scenes(batch, generator)
            label = draw(*support(scenes), raters, generator).to(torch.uint8)
            optimizer.zero_grad(set_to_none=True)
            loss(network(image(scenes), label=label), label).backward()
            if max_norm:
                nn.utils.clip_grad_norm_(network.parameters(), max_norm)
            optimizer.step()
            schedule.step()
            if step % max(1, steps // _RECORDS) == 0 or step == steps:
                values = terms(model, held_out, raters, generator=torch.Generator(device).manual_seed(seed))
                history.append({"step": step, "seconds": time.perf_counter() - begin, **values})
                bar.set_postfix({key: f"{value:.3g}" for key, value in values.items()})
                bad = [key for key, value in values.items() if value != value or abs(value) == float("inf")]
                if bad:
                    raise NotFiniteError(f"{name}: {bad[0]} is {values[bad[0]]} after step {step}; lower --lr.")
    network.eval()
    return history


@torch.no_grad()
def terms(model: Model, scenes: Scenes, raters: int, generator: torch.Generator) -> dict[str, float]:
    """The terms of the objective, unweighted, and the likelihood (nats per image) where it is none of them.

    On given scenes, and raters drawn for them.
    """
    training = model.network.training
    model.network.eval()
    model.loss.eval()
    label = draw(*support(scenes), raters, generator).to(torch.uint8)
    output = model.network(image(scenes), label=label)
    found = model.loss.terms(output, label)  # type: ignore[operator]
    if "likelihood" not in found:
        found = {"likelihood": _LIKELIHOOD(output, label).mean(), **found}
    values = {key: float(value) for key, value in found.items()}
    model.network.train(training)
    model.loss.train(training)
    return values


@torch.no_grad()
def sample(network: nn.Module, scenes: Scenes, number: int, seed: int, at_once: int = 32) -> Tensor:
    """Sampled masks (B, number, H, W) bool: logits above 0."""
    torch.manual_seed(seed)
    images = image(scenes)
    draws: Callable[[Tensor, int], Tensor] = network.sample  # type: ignore[assignment]
    parts = [draws(part, number)[:, :, 0] > 0 for part in images.split(at_once)]
    return torch.cat(parts)


def _down_to_a_pixel(filters: list[int]) -> list[int]:
    resolutions = SIZE.bit_length()  # 32, 16, 8, 4, 2, 1
    return [*filters, *[filters[-1]] * (resolutions - len(filters))]


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
