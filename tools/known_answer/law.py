"""The law: images of blurred discs, and the finite, exactly known distribution of the masks that raters draw on them.

**Image.** A scene is six numbers, drawn independently and uniformly: the centre's column c in [10, 15] and row r in
[10, 21] (pixels, of 32 x 32), the radius R in [5, 6.5], the spread s in [0.05, 0.2], the presence p in [0.1, 1] and
the balance t in [0, 1]. At the distance rho from the centre the image is

    p * clamp(1/2 + (R - rho) / (2 s R), 0, 1),

a disc of brightness p whose rim falls off linearly from (1 - s) R to (1 + s) R; the 4 x 4 pixels in the upper left
corner hold t instead. There is no noise: all six numbers can be read off the image, and p(y | x) is p(y | scene).

**Raters** are independent and identically distributed given the image. With probability 1 - p a rater draws nothing.
Otherwise the rater means one of three things, with the probabilities w(t), and outlines it with a radius of the
grid g in {-1, -1/2, 0, 1/2, 1}, uniformly:

    mode     w(t)           centre            radius
    small    0.7 - 0.4 t    (c, r)            0.55 R (1 + s g)
    large    0.2            (c, r)            1.2 R (1 + s g)
    shifted  0.1 + 0.4 t    (c + 1.4 R, r)    0.8 R (1 + s g)

A pixel belongs to the mask where its centre lies at most the radius away. So y | x has the 16 values that
:func:`support` lists, and an expectation under the law is a sum over them (over their pairs), not an estimate. Over all
images the frequencies are .45 empty, .275 small, .11 large and .165 shifted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["LAW", "MODES", "SIZE", "Scenes", "draw", "image", "probabilities", "random_scenes", "support"]

SIZE = 32
MODES = ("small", "large", "shifted")
LAW: dict[str, Any] = {  # everything that the law is made of, so that results of another law are told apart
    "column": (10.0, 15.0),
    "row": (10.0, 21.0),
    "radius": (5.0, 6.5),
    "spread": (0.05, 0.2),
    "presence": (0.1, 1.0),
    "balance": (0.0, 1.0),
    "weights": ((0.7, 0.2, 0.1), (0.3, 0.2, 0.5)),  # at balance 0 and 1, linear between them
    "shift": (0.0, 0.0, 1.4),  # of the centre to the right, in radii
    "scale": (0.55, 1.2, 0.8),  # of the radius
    "grid": (-1.0, -0.5, 0.0, 0.5, 1.0),
    "marker": 4,
}


class Scenes(NamedTuple):
    """What an image shows; each (B,)."""

    column: Tensor  # pixels
    row: Tensor  # pixels
    radius: Tensor  # pixels
    spread: Tensor  # half the width of the rim, in radii
    presence: Tensor  # probability that a rater draws anything
    balance: Tensor  # of the modes' weights


def random_scenes(number: int, generator: torch.Generator) -> Scenes:
    """So many scenes, on the generator's device."""
    uniform = torch.rand(len(Scenes._fields), number, generator=generator, device=generator.device)
    bounds = [LAW[name] for name in Scenes._fields]
    return Scenes(*(low + (high - low) * u for u, (low, high) in zip(uniform, bounds)))


def image(scenes: Scenes) -> Tensor:
    """(B, 1, H, W) in [0, 1]."""
    distance = _distance(scenes.column, scenes.row)  # (B, H, W)
    radius, spread, presence = (x[:, None, None] for x in (scenes.radius, scenes.spread, scenes.presence))
    disc = presence * (0.5 + (radius - distance) / (2 * spread * radius)).clamp(0, 1)
    disc[:, : LAW["marker"], : LAW["marker"]] = scenes.balance[:, None, None]
    return disc.unsqueeze(1)


def probabilities(scenes: Scenes) -> Tensor:
    """(B, 4): of nothing, small, large, shifted."""
    first, last = (torch.tensor(w, device=scenes.balance.device) for w in LAW["weights"])
    weights = torch.lerp(first, last, scenes.balance[:, None])  # (B, 3)
    return torch.cat([1 - scenes.presence[:, None], scenes.presence[:, None] * weights], dim=1)


def support(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """All masks that a rater can draw and their probabilities.

    Returns:
        masks (B, 16, H, W) bool: nothing, then the five radii of each mode, small ones first; probabilities (B, 16).
    """
    device = scenes.radius.device
    scale, shift, grid = (torch.tensor(LAW[name], device=device) for name in ("scale", "shift", "grid"))
    column = scenes.column[:, None] + shift * scenes.radius[:, None]  # (B, 3)
    row = scenes.row[:, None].expand_as(column)
    relative = 1 + scenes.spread[:, None, None] * grid  # (B, 1, 5)
    radius = scenes.radius[:, None, None] * scale[:, None] * relative  # (B, 3, 5)
    discs = _distance(column, row).unsqueeze(2) <= radius[..., None, None]  # (B, 3, 5, H, W)
    nothing = discs.new_zeros(len(discs), 1, SIZE, SIZE)
    by_mode = probabilities(scenes)
    shares = by_mode[:, 1:].repeat_interleave(len(grid), dim=1) / len(grid)
    return torch.cat([nothing, discs.flatten(1, 2)], dim=1), torch.cat([by_mode[:, :1], shares], dim=1)


def draw(masks: Tensor, chances: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Independent draws of a finite law by inversion: masks (B, M, H, W), chances (B, M) -> (B, number, H, W)."""
    uniform = torch.rand(len(masks), number, generator=generator, device=generator.device)
    # the last sum may end below 1 by rounding; a draw above it is the last mask
    which = torch.searchsorted(chances.cumsum(1), uniform, right=True).clamp(max=chances.shape[1] - 1)  # (B, number)
    return masks[torch.arange(len(masks), device=masks.device)[:, None], which]


def _distance(column: Tensor, row: Tensor) -> Tensor:
    # (...,) and (...,) -> (..., H, W): of every pixel's centre, which has whole coordinates
    place = torch.arange(SIZE, device=column.device, dtype=column.dtype)
    return torch.hypot(place - column[..., None, None], (place[:, None] - row[..., None, None]))
