"""Pictures beside the figures: of an evaluation's cases, and of one image's samples."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..data.images import output_name
from ..metrics import MISSING
from .keeping import Shown

__all__ = ["DrawSamplesd", "draw_cases", "split_raters"]


def split_raters(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (M, R, H, W) with missing raters' maps emptied, and which raters (M, R) are there."""
    valid = ~(labels == MISSING).all(axis=(2, 3))
    return np.where(valid[:, :, None, None], labels, 0).astype(np.uint8), valid


def draw_cases(cases: Sequence[Shown], path: Path, simulated: bool) -> None:
    """A row per case: image, raters, samples, their mean and standard deviation."""
    from ..visualize import sample_panel, save_figure

    images, labels, masks = (np.stack(parts) for parts in zip(*cases))
    labels, rater_valid = split_raters(labels)
    save_figure(sample_panel(images, labels, masks, rater_valid=rater_valid, simulated=simulated), path)


class DrawSamplesd(MapTransform):
    """Write a picture of an image's samples: <name>_overview.png, of a volume the slices with the most doubt.

    Args:
        keys: the image (C, *S), as the network saw it.
        samples_key: the samples' masks (N, *S).
        output_dir: where the picture goes.
        slices: rows of the picture, for a volume.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        samples_key: str = "pred_samples",
        output_dir: str = "eval",
        slices: int = 4,
    ) -> None:
        super().__init__(keys)
        self.samples_key = samples_key
        self.output_dir = Path(output_dir)
        self.slices = slices

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        from ..visualize import sample_panel, save_figure

        result = dict(data)
        for key in self.key_iterator(result):
            image, masks = (np.asarray(torch.as_tensor(result[k]).cpu()) for k in (key, self.samples_key))
            meta = result[key].meta if isinstance(result[key], MetaTensor) else {}
            name = output_name(meta, None)["subject"]
            names = None
            if image.ndim == 4:
                doubt = masks.std(0).sum((0, 1))  # (D,)
                rows = np.sort(np.argsort(-doubt, kind="stable")[: self.slices])
                heights = [(meta["affine"] @ torch.tensor([0, 0, k, 1.0], dtype=torch.float64))[2].item() for k in rows]
                names = [f"z = {height:g} mm" for height in heights]
                image, masks = np.moveaxis(image[..., rows], -1, 0), np.moveaxis(masks[..., rows], -1, 0)
            else:
                image, masks = image[None], masks[None]
            nobody = np.zeros((len(masks), 0, *masks.shape[2:]), np.uint8)
            figure = sample_panel(image, nobody, masks, names=names, title=name)
            save_figure(figure, self.output_dir / f"{name}_overview.png")
        return result
