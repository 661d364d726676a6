"""The toy problem of stochastic segmentation networks (Monteiro et al. 2020, section 5.1 and Figure 2).

    python tools/toy_problem.py --out FOLDER [--steps 10000] [--seed 0] [--evaluation-samples 100000]

A line of 21 pixels and two equally likely label maps: the first third is on, the last third is off, the middle third is
off in one and on in the other. There is one image, so that the backbone may be an identity over the pixels, and the
1x1 convolution behind it holds a free mean, log-variance and factor for each. Network, density and likelihood are those
that segment images. No pre-training of the mean and no early stopping, which the paper needed.

FOLDER gets toy_problem.json (log-likelihood of the low-rank and of the diagonal model: the mean over the two label maps
of ln p(y), estimated with the evaluation samples, with its standard error) and figure_2.png. The best values are
ln 1/2 = -0.693 and, for a model whose pixels know nothing of each other, -7 ln 2 = -4.852; the paper has -0.93 and
-4.87.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

import aleatoric
from aleatoric.distributions import LogitMapNormal
from aleatoric.errors import NotFiniteError
from aleatoric.files import write_atomically
from aleatoric.losses import MonteCarloLikelihood, MonteCarloLikelihoodLoss
from aleatoric.networks.blocks import LogitMapDensity
from aleatoric.networks.nets import StochasticSegmentationNetwork
from aleatoric.visualize import save_figure
from aleatoric.visualize.drawing import Footer, finished, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS, THIRD = 21, 7
RANKS = {"low_rank": 2, "diagonal": 0}
OPTIMA = {"low_rank": -math.log(2), "diagonal": -THIRD * math.log(2)}
PAPER = {"low_rank": -0.93, "diagonal": -4.87}
SAMPLES_DRAWN = 14  # in the figure
CHUNK = 20_000  # evaluation samples at a time


class PixelIdentity(nn.Module):
    """A backbone that says of each pixel which one it is: (B, 1, 21) -> (B, 21, 21), whatever the image."""

    def forward(self, image: Tensor) -> Tensor:
        """Feature f of pixel i is 1 where f = i."""
        return torch.eye(PIXELS).expand(image.shape[0], -1, -1)


def problem() -> tuple[Tensor, Tensor]:
    """The image (1, 1, 21), of zeros, and the two label maps (1, 2, 21)."""
    label = torch.zeros(1, 2, PIXELS, dtype=torch.long)
    label[:, :, :THIRD] = 1
    label[:, 1, THIRD : 2 * THIRD] = 1
    return torch.zeros(1, 1, PIXELS), label


def network(rank: int) -> StochasticSegmentationNetwork:
    """One logit a pixel, every number of its law a parameter of its own."""
    return StochasticSegmentationNetwork(PixelIdentity(), LogitMapDensity(1, PIXELS, 1, rank, num_layers=0))


def train(name: str, options: argparse.Namespace) -> tuple[LogitMapNormal, Tensor]:
    """The law after ``steps`` steps of Adam, and the loss at each of them.

    Raises:
        NotFiniteError: a loss was not finite.
    """
    torch.manual_seed(options.seed)
    model, (image, label) = network(RANKS[name]), problem()
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
    loss = MonteCarloLikelihoodLoss(options.monte_carlo_samples)
    history = torch.empty(options.steps)
    bar = tqdm(range(options.steps), desc=name, unit="step", mininterval=1.0, dynamic_ncols=True)
    for step in bar:
        value = loss(model(image, label=label), label)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history[step] = value.detach()
        if step % 500 == 499 or step == options.steps - 1:
            bar.set_postfix(loss=f"{history[max(0, step - 499) : step + 1].mean():.4f}", refresh=False)
            if not history[: step + 1].isfinite().all():
                raise NotFiniteError(
                    f"the loss of {name} was not finite before step {step + 1}: lower the learning rate."
                )
    with torch.no_grad():
        return model.distribution(image), history


@torch.no_grad()
def evaluate(law: LogitMapNormal, samples: int, seed: int) -> dict[str, Any]:
    """Mean over the label maps of ln p(y), from ``samples`` draws, with the standard error of that estimate."""
    torch.manual_seed(seed)
    label = problem()[1]
    values = MonteCarloLikelihood(samples, chunk_size=CHUNK).log_likelihoods(law, label)[:, 0].double()  # (M, 2)
    each = values.logsumexp(0) - math.log(samples)  # (2,)
    # to first order the estimate is the mean of these over the samples
    influence = (values - each).exp().mean(1)
    error = influence.std() / math.sqrt(samples)
    return {"log_likelihood": float(each.mean()), "standard_error": float(error), "of_label_maps": each.tolist()}


def figure(laws: dict[str, LogitMapNormal], results: dict[str, Any], seed: int) -> Figure:
    """Figure 2 of the paper: a row for each model with mean, covariance and samples; the label maps at the right."""
    width, height = 9.0, 5.6
    caption = (
        f"Samples are the probabilities of {SAMPLES_DRAWN} random logit maps, label maps the two that are equally "
        "likely. The covariance of the low-rank model is bounded where the true one is infinite."
    )
    footer = Footer(width, [], caption)
    drawing = new_figure(width, height + footer.height)
    axes = drawing.subplots(len(laws), 4, width_ratios=[0.7, 3.0, 3.0, 0.9], squeeze=False)
    label = problem()[1][0].T
    for row, (name, law) in zip(axes, laws.items()):
        torch.manual_seed(seed)
        covariance = law.covariance_matrix[0]
        samples = law.sample((SAMPLES_DRAWN,))[:, 0, 0].sigmoid().T  # (21, 14)
        reach, spread = float(law.mean.abs().max()), float(covariance.abs().max())
        panels = {
            "mean": (law.mean[0].T, "RdBu_r", -reach, reach),
            "covariance": (covariance, "RdBu_r", -spread, spread),
            "samples": (samples, "cividis", 0.0, 1.0),
            "label maps": (label, "cividis", 0.0, 1.0),
        }
        for axis, (title, (values, colors, low, high)) in zip(row, panels.items()):
            drawn = axis.imshow(
                values.numpy(), cmap=colors, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
            )
            axis.set_title(title, fontsize=8)
            axis.tick_params(labelsize=6)
            axis.set_xticks([0, 7, 14, 20] if title == "covariance" else [])
            axis.set_yticks([0, 7, 14, 20])
            for between in range(values.shape[1] - 1 if title in ("samples", "label maps") else 0):
                axis.axvline(between + 0.5, color="white", linewidth=1.5)
            drawing.colorbar(drawn, ax=axis, fraction=0.12, pad=0.03).ax.tick_params(labelsize=6)
        found = results[name]["log_likelihood"]
        row[0].set_ylabel(f"{name.replace('_', '-')} model\nlog-likelihood {found:.3f}", fontsize=8)
    return finished(drawing, footer, "Toy problem: 21 pixels, the middle third is on or off as a whole")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for toy_problem.json and figure_2.png")
    parser.add_argument("--steps", type=int, default=10_000, help="of each of the two trainings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--evaluation-samples", type=int, default=100_000, help="draws that estimate the log-likelihood"
    )
    parser.add_argument("--monte-carlo-samples", type=int, default=200, help="draws of a training step")
    parser.add_argument("--learning-rate", type=float, default=1.0, help="of Adam, in units of a logit")
    options = parser.parse_args(arguments)
    for name, least in {"steps": 1, "evaluation_samples": 2, "monte_carlo_samples": 1}.items():
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected {least} or more")
    if not options.learning_rate > 0:
        parser.error(f"--learning-rate is {options.learning_rate}, expected more than 0")
    return options


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    options = parse(words)
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    versions = {"aleatoric": aleatoric.__version__, "torch": torch.__version__, "python": platform.python_version()}
    laws: dict[str, LogitMapNormal] = {}
    results: dict[str, Any] = {}
    try:
        for name in RANKS:
            start = time.perf_counter()
            laws[name], history = train(name, options)
            results[name] = {
                **evaluate(laws[name], options.evaluation_samples, options.seed + 1),
                "optimum": OPTIMA[name],
                "paper": PAPER[name],
                "rank": RANKS[name],
                "largest_loss": float(history.max()),
                "largest_standard_deviation": float(laws[name].stddev.max()),
                "seconds": round(time.perf_counter() - start, 1),
            }
    except NotFiniteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    content = {**results, **settings, "versions": versions}
    save_figure(figure(laws, results, options.seed), options.out / "figure_2.png")
    write_atomically(options.out / "toy_problem.json", json.dumps(content, indent=1) + "\n")
    for name, result in results.items():
        print(
            f"{name:9}  log-likelihood {result['log_likelihood']:.4f} (standard error {result['standard_error']:.4f}), "
            f"the best {result['optimum']:.3f}, the paper's {result['paper']:.2f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
