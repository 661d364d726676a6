"""Every latent-variable model against a law p(y | x) that is known exactly.

    python tools/bench_known_answer.py [MODEL ...] [--steps 2000] [--seeds 1] [--out FOLDER]

A MODEL is a bundle's name and, behind colons, a variant and ids of its config: punet, generalized_punet:full,
spunet:kl_weight=1. Default: every bundle and every variant of its latent space. Network, objective, optimiser and
gradient clipping are the bundle's; size, steps, batch and learning rate are one for all. The law, whose images and
masks are made as they are needed, is that of tools/known_answer/law.py; no image is trained on twice. Columns (lower is
better, with standard errors over the test images, over the seeds where there are several):

    GED     squared generalized energy distance between the samples' law and the true one, unbiased in the samples
    TV      total variation between the samples' frequencies of (empty, each mode, none of them) and the probabilities,
            mean over the images; N samples of the law itself do not reach 0
    ECE     expected calibration error of presence (a sample that is not empty), in bins of the true probability
    Brier   mean squared error of the probability of presence, the noise of N samples taken out: what the Brier score
            exceeds its optimum by
    ER      effective rank of the prior's covariance, mean over the images
    -log p, KL   of the training's posterior, on test scenes, nats per image; of the cSAE the KL divergence is
                 that of the bases and -log p is decoded from the flow: no bound on the evidence

With --out, FOLDER keeps table.txt, results.json, known_answer.png and the trained weights: a run that was interrupted
goes on, and a model is trained again only where a setting that its training rests on has changed (a change of the code
is not noticed: take a new FOLDER).
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai
import torch

import aleatoric
from aleatoric.distributions import principal_scales
from aleatoric.errors import InputError, NotFiniteError
from aleatoric.files import write_atomically
from aleatoric.metrics.functional import effective_rank
from aleatoric.visualize import save_figure
from known_answer.law import LAW, Scenes, draw, image, random_scenes, support
from known_answer.report import Run, as_json, reliability_figure, table
from known_answer.scoring import per_image
from known_answer.training import Model, available, build, sample, terms, train

TEST_SEED = 1_000_000  # no training's seed


def references(scenes: Scenes, number: int) -> Iterator[Run]:
    """Answers that need no training: what the figures say of the truth, and of three ways to miss it."""
    masks, chances = support(scenes)
    generator = torch.Generator(masks.device).manual_seed(TEST_SEED + 1)
    average = chances.mean(0, keepdim=True).expand_as(chances)
    most = (masks * chances[..., None, None]).sum(1, keepdim=True) > 0.5  # (B, 1, H, W)
    always = torch.cat([torch.zeros_like(chances[:, :1]), chances[:, 1:] / chances[:, 1:].sum(1, keepdim=True)], dim=1)
    answers = {
        "the law itself": draw(masks, chances, number, generator),
        "ignores the image's odds": draw(masks, average, number, generator),
        "never empty": draw(masks, always, number, generator),
        "mean mask, thresholded": most.expand(-1, number, -1, -1),
    }
    for name, samples in answers.items():
        yield Run(name, 0, per_image(samples, scenes), {}, [])


def run_model(name: str, seed: int, scenes: Scenes, options: argparse.Namespace) -> Run:
    """Train or take what was trained before, sample, score."""
    device = torch.device(options.device)
    torch.manual_seed(seed)
    model = build(name, overrides(options), device)
    settings = {"law": LAW, "config": model.config}
    settings |= {key: getattr(options, key) for key in ("steps", "batch", "raters")}
    settings = json.loads(json.dumps(settings))
    history = trained(model, name, seed, settings, options)
    samples = sample(model.network, scenes, options.samples, seed)
    generator = torch.Generator(device).manual_seed(seed)
    extras = {"minutes": history[-1]["seconds"] / 60, **terms(model, scenes, options.raters, generator)}
    rank = rank_of_prior(model, scenes)
    return Run(name, seed, per_image(samples, scenes), extras if rank is None else extras | rank, history)


def trained(
    model: Model, name: str, seed: int, settings: dict[str, Any], options: argparse.Namespace
) -> list[dict[str, float]]:
    """Fill the network, by training or from --out; the course of the training."""
    path = options.out / "models" / f"{re.sub(r'[^a-z0-9_.=]+', '-', name)}-seed{seed}.pt" if options.out else None
    if path is not None and path.exists():
        found = torch.load(path, map_location=options.device, weights_only=True)
        if found["settings"] == settings:
            model.network.load_state_dict(found["network"])
            model.network.eval()
            print(f"{name}, seed {seed}: trained before, taken from {path.name}", file=sys.stderr)
            return found["history"]
    history = train(model, name, options.steps, options.batch, options.raters, seed, torch.device(options.device))
    if path is not None:
        content = io.BytesIO()
        torch.save({"settings": settings, "network": model.network.state_dict(), "history": history}, content)
        write_atomically(path, content.getvalue())
    return history


@torch.no_grad()
def rank_of_prior(model: Model, scenes: Scenes) -> dict[str, float] | None:
    """Mean effective rank, where the network has one prior for an image."""
    if not hasattr(model.network, "prior_distribution"):
        return None
    scales = principal_scales(model.network.prior_distribution(image(scenes)))
    return {"latent_dim": scales.shape[-1], "effective_rank": float(effective_rank(scales).mean())}


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """Ids of the bundles' configs that are the same for all."""
    norm = None if options.norm == "none" else options.norm
    chosen = {"filters": options.filters, "num_convs": options.num_convs, "norm": norm, "learning_rate": options.lr}
    return chosen if options.latent_dim is None else {**chosen, "latent_dim": options.latent_dim}


def distinct(names: list[str], options: argparse.Namespace) -> list[str]:
    """The names without those whose config is that of an earlier one: an overlay may spell out the default."""
    kept: dict[str, str] = {}
    for name in names:
        config = json.dumps(build(name, overrides(options), torch.device("cpu")).config, sort_keys=True)
        if config in kept:
            print(f"{name} is {kept[config]} and left out", file=sys.stderr)
        kept.setdefault(config, name)
    return list(kept.values())


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--out", type=Path, help="folder for table, JSON, figure and weights")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each model")
    parser.add_argument("--batch", type=int, default=8, help="new images a step")
    parser.add_argument("--raters", type=int, default=4, help="per training image")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak; warm-up over 5 %% of the steps, cosine to zero")
    parser.add_argument("--filters", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--num_convs", type=int, default=1)
    parser.add_argument("--norm", default="none", help="MONAI's name of a normalisation")
    parser.add_argument("--latent_dim", type=int, help="default: each bundle's own")
    parser.add_argument("--images", type=int, default=256, help="test images")
    parser.add_argument("--samples", type=int, default=64, help="per test image")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    for name, least in {"steps": 1, "seeds": 1, "batch": 1, "raters": 1, "images": 2, "samples": 2}.items():
        if getattr(options, name) < least:
            parser.error(f"--{name} is {getattr(options, name)}, expected {least} or more")
    return options


def head_of(options: argparse.Namespace, arguments: list[str]) -> dict[str, Any]:
    """Command, settings and versions."""
    settings = {key: value for key, value in vars(options).items() if key not in ("models", "out")}
    versions = {"aleatoric": aleatoric.__version__, "torch": torch.__version__, "monai": monai.__version__}
    return {
        "command": " ".join(["python tools/bench_known_answer.py", *arguments]),
        "settings": settings,
        "versions": {"python": platform.python_version(), **versions},
    }


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    options = parse(words)
    torch.set_num_threads(options.threads)
    scenes = random_scenes(options.images, torch.Generator(options.device).manual_seed(TEST_SEED))
    failed: list[str] = []
    try:
        names = distinct(options.models or available(), options)
        runs = list(references(scenes, options.samples))
        for name in names:
            for seed in range(options.seeds):
                try:
                    runs.append(run_model(name, seed, scenes, options))
                except NotFiniteError as error:
                    failed.append(f"left out, seed {seed}: {error}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: with the same --out, what is trained is kept", file=sys.stderr)
        return 130
    head = head_of(options, words)
    lines = [f"$ {head['command']}"]
    lines += [f"{key}: " + ", ".join(f"{k} {v}" for k, v in head[key].items()) for key in ("settings", "versions")]
    text = "\n".join([*lines, "", table(runs, options.samples), *failed])
    print(text)
    if options.out is not None:
        write_atomically(options.out / "table.txt", text.rstrip() + "\n")
        content = as_json(runs, options.samples, {**head, "failed": failed})
        write_atomically(options.out / "results.json", json.dumps(content, indent=1) + "\n")
        save_figure(reliability_figure(runs), options.out / "known_answer.png")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
