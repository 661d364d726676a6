"""Affine augmentation of a whole batch on its device: one resampling for the images, one for all raters' labels.

The random transform draws parameters, a deterministic twin applies them. Both follow MONAI: the same argument names,
ranges and order (rotate @ shear @ translate @ scale, acting on the output's pixel coordinates about the centre), so
that the result equals :class:`monai.transforms.Affine` with the same parameters.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple_rep
from torch import Tensor

from ..errors import InputError

__all__ = ["AffineParameters", "BatchAffined", "BatchRandAffined", "affine_matrices", "batch_affine", "to_device"]

# One value r: uniform in [-r, r] along the first axis. A sequence: per axis, a value or a pair (low, high).
Range = float | Sequence[float | None | Sequence[float]] | None


class AffineParameters(NamedTuple):
    """One affine map per image, as :class:`monai.transforms.Affine` takes them; d = 2 or 3 spatial dimensions."""

    rotate: Tensor  # (B, 1) or (B, 3), radians
    shear: Tensor  # (B, 2) or (B, 6), factors (tangent of the angle)
    translate: Tensor  # (B, d), pixels
    scale: Tensor  # (B, d), factors, 1 = unchanged


def affine_matrices(params: AffineParameters) -> Tensor:
    """Homogeneous matrices rotate @ shear @ translate @ scale, (B, d + 1, d + 1), of pixel coordinates (i, j[, k]).

    As in MONAI, the matrix maps a coordinate of the OUTPUT to the coordinate of the input that is read there: a
    scale above 1 shrinks the picture, a positive translation shifts it to lower indices.

    Example:
        >>> p = AffineParameters(torch.zeros(1, 1), torch.zeros(1, 2), torch.tensor([[3.0, 0.0]]), torch.ones(1, 2))
        >>> affine_matrices(p)[0].tolist()
        [[1.0, 0.0, 3.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    dims = params.scale.shape[1]
    if dims == 2:
        linear = _plane_rotation(params.rotate[:, 0], 0, 1, dims)
        shears = [(0, 1), (1, 0)]
    else:
        # Intrinsic x, y, z, MONAI's default; rotation about y runs from the third axis to the first.
        linear = _plane_rotation(params.rotate[:, 0], 1, 2, dims)
        linear = linear @ _plane_rotation(params.rotate[:, 1], 2, 0, dims)
        linear = linear @ _plane_rotation(params.rotate[:, 2], 0, 1, dims)
        shears = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    eye = torch.eye(dims, device=params.scale.device, dtype=params.scale.dtype)
    shear = eye
    for number, (row, column) in enumerate(shears):
        unit = torch.outer(eye[row], eye[column])
        shear = (eye + params.shear[:, number, None, None] * unit) @ shear  # the first factor acts first
    linear = linear @ shear
    offset = linear @ params.translate.unsqueeze(-1)  # (B, d, 1)
    linear = linear * params.scale.unsqueeze(1)  # scales the columns
    top = torch.cat([linear, offset], dim=2)
    bottom = F.pad(torch.zeros_like(top[:, :1, :-1]), (0, 1), value=1.0)
    return torch.cat([top, bottom], dim=1)


def batch_affine(
    image: Tensor, params: AffineParameters, mode: str = "bilinear", padding_mode: str = "reflection"
) -> Tensor:
    """Resample each image of a batch under its own affine map, in one call.

    Args:
        image: (B, C, *S), two or three spatial dimensions.
        params: the maps, on the image's device.
        mode: ``"bilinear"`` (floating result) or ``"nearest"`` (type and values kept).
        padding_mode: ``"zeros"``, ``"border"`` or ``"reflection"``.

    Returns:
        (B, C, *S).

    Raises:
        InputError: neither two nor three spatial dimensions, or parameters of another number of them.
    """
    return _resample(image, _sampling_grid(image.shape, params), mode, padding_mode)


class BatchAffined(MapTransform):
    """Apply given affine maps to entries of a batch dict: the deterministic twin of :class:`BatchRandAffined`.

    Args:
        keys: entries of shape (B, C, *S); all share B and S.
        mode: interpolation, one for all keys or one per key.
        padding_mode: what lies outside, one for all keys or one per key.
        allow_missing_keys: skip keys that the batch lacks.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        mode: str | Sequence[str] = ("bilinear", "nearest"),
        padding_mode: str | Sequence[str] = "reflection",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.padding_mode = ensure_tuple_rep(padding_mode, len(self.keys))

    def __call__(  # type: ignore[override]
        self, data: Mapping[Hashable, Any], params: AffineParameters, selected: Tensor | None = None
    ) -> dict[Hashable, Any]:
        """Args: data: the batch; params: B maps; selected: (B,) bool, images that are not remain bit for bit."""
        batch = dict(data)
        grid, shape = None, None
        for key, mode, padding_mode in self.key_iterator(batch, self.mode, self.padding_mode):
            image = batch[key]
            found = (image.shape[0], *image.shape[2:])
            if shape is None:
                shape, grid = found, _sampling_grid(image.shape, params)
            elif found != shape:
                raise InputError(
                    f"{key} with batch and size {found} found, {shape} as for {self.keys[0]} expected; crop them alike."
                )
            out = _resample(image, grid, mode, padding_mode)
            if selected is not None:
                out = torch.where(selected.view(-1, *[1] * (out.ndim - 1)), out, image)
            batch[key] = out
        return batch


class BatchRandAffined(Randomizable, MapTransform):
    """Random rotation, shear, translation and scaling of a batch dict: images bilinear, labels nearest.

    The batched form of :class:`monai.transforms.RandAffined`: the same arguments, ranges and units, each image has its
    own parameters. All of them are drawn as one array from the transform's own random state; there is no Python loop
    over images and the host never waits for the device.

    The papers' protocol for 128x128 patches (rotation +-180 degrees, shear +-30 degrees, translation +-0.1 of the
    side, scale 0.8-1.2) reads ``rotate_range=3.1416, shear_range=(0.5774, 0.5774), translate_range=(12.8, 12.8),
    scale_range=(0.2, 0.2)``: MONAI's shear is a factor, tan 30 degrees = 0.5774. MONAI scales each axis on its own.

    Args:
        keys: entries of shape (B, C, *S), C channels or R raters; all share B and S.
        prob: probability that an image is transformed; the others remain bit for bit.
        rotate_range: radians. A number r: uniform in [-r, r) about the first axis (2D: the only one). A sequence:
            per axis a number or a pair (low, high); None = no change of that axis.
        shear_range: factors, the same form; 2 in 2D, 6 in 3D.
        translate_range: pixels, the same form.
        scale_range: change of the scale factor, the same form: u gives the factor 1 + u.
        mode: interpolation, one for all keys or one per key.
        padding_mode: what lies outside, one for all keys or one per key.
        allow_missing_keys: skip keys that the batch lacks.

    Raises:
        InputError: a range that is no number, pair or sequence of them, or has more entries than there are axes;
            entries of different batch or spatial size.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        prob: float = 1.0,
        rotate_range: Range = None,
        shear_range: Range = None,
        translate_range: Range = None,
        scale_range: Range = None,
        mode: str | Sequence[str] = ("bilinear", "nearest"),
        padding_mode: str | Sequence[str] = "reflection",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.prob = float(prob)
        self.ranges = {
            "rotate": _bounds("rotate_range", rotate_range),
            "shear": _bounds("shear_range", shear_range),
            "translate": _bounds("translate_range", translate_range),
            "scale": _bounds("scale_range", scale_range),
        }
        self.affine = BatchAffined(keys, mode, padding_mode, allow_missing_keys)

    def randomize(self, batch_size: int, spatial_dims: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]
        """Draw for a batch: (B,) bool, which images are transformed, and (B, P) float32, all parameters.

        The columns are rotate, shear, translate and scale. The draws do not depend on which images were selected.
        """
        bounds = np.concatenate([_fitted(k, self.ranges[k], n) for k, n in _widths(spatial_dims).items()])  # (P, 2)
        selected = self.R.random_sample(batch_size) < self.prob
        unit = self.R.random_sample((batch_size, len(bounds)))
        values = bounds[:, 0] + unit * (bounds[:, 1] - bounds[:, 0])
        values[:, -spatial_dims:] += 1.0
        return selected, values.astype(np.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        first = data[self.first_key(dict(data))]
        selected, values = self.randomize(first.shape[0], first.ndim - 2)
        if not selected.any():
            return dict(data)
        params = _split(to_device(values, first.device), first.ndim - 2)
        return self.affine(data, params, None if selected.all() else to_device(selected, first.device))


def _widths(spatial_dims: int) -> dict[str, int]:
    if spatial_dims not in (2, 3):
        raise InputError(f"{spatial_dims} spatial dimensions found, 2 or 3 expected; pass a batch (B, C, H, W[, D]).")
    three = spatial_dims == 3
    return {"rotate": 3 if three else 1, "shear": 6 if three else 2, "translate": spatial_dims, "scale": spatial_dims}


def _split(values: Tensor, spatial_dims: int) -> AffineParameters:
    return AffineParameters(*values.split(list(_widths(spatial_dims).values()), dim=1))


def _bounds(name: str, value: Range) -> list[tuple[float, float]]:
    entries: Sequence[Any] = () if value is None else value if isinstance(value, Sequence) else (value,)
    bounds = []
    for entry in entries:
        pair = (0.0, 0.0) if entry is None else entry if isinstance(entry, Sequence) else (-entry, entry)
        try:
            low, high = (float(v) for v in pair)
        except (TypeError, ValueError):
            raise InputError(
                f"{name}={value!r} found, a number or (low, high) per axis expected; correct it."
            ) from None
        bounds.append((low, high))
    return bounds


def _fitted(name: str, bounds: Sequence[tuple[float, float]], width: int) -> np.ndarray:
    if len(bounds) > width:
        raise InputError(f"{len(bounds)} entries found in {name}_range, at most {width} expected; shorten it.")
    return np.array([*bounds, *[(0.0, 0.0)] * (width - len(bounds))])


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Move a small host array to the device without making the host wait."""
    tensor = torch.from_numpy(array)
    # From pinned memory the copy is queued; from pageable memory the host would wait for the device's queue.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _plane_rotation(angle: Tensor, first: int, second: int, dims: int) -> Tensor:
    """(B, d, d): rotation from axis ``first`` towards ``second``."""
    eye = torch.eye(dims, device=angle.device, dtype=angle.dtype)
    plane = torch.outer(eye[first], eye[first]) + torch.outer(eye[second], eye[second])
    turn = torch.outer(eye[second], eye[first]) - torch.outer(eye[first], eye[second])
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return (eye - plane) + cos * plane + sin * turn


def _sampling_grid(shape: Sequence[int], params: AffineParameters) -> Tensor:
    """(B, *S, d) in torch's normalised coordinates, last axis first, for ``align_corners=False``."""
    size = shape[2:]
    dims = len(size)
    _widths(dims)
    if params.scale.shape[1] != dims:
        raise InputError(f"{params.scale.shape[1]}D parameters found for {dims}D images; pass parameters of {dims}D.")
    matrix = affine_matrices(params)
    # Normalised = pixels / half the side; torch wants the coordinate of the last axis first.
    half = np.array([s / 2 for s in size], dtype=np.float32)
    theta = matrix[:, :dims].flip(1) / to_device(half[::-1].copy(), matrix.device)[:, None]  # (B, d, d + 1)
    coefficient = theta.view(*theta.shape, *[1] * dims)  # (B, d, d + 1, 1 ...)
    # Coordinate planes (B, d, *S), viewed as (B, *S, d): broadcasting costs a third of F.affine_grid's matmul here.
    planes = coefficient[:, :, dims]
    for axis, length in enumerate(size):
        pixels = torch.arange(length, device=matrix.device, dtype=matrix.dtype) - (length - 1) / 2
        planes = planes + coefficient[:, :, axis] * pixels.view([-1 if a == axis else 1 for a in range(dims)])
    return planes.movedim(1, -1)


def _resample(image: Tensor, grid: Tensor | None, mode: str, padding_mode: str) -> Tensor:
    assert grid is not None
    keep = mode == "nearest" or image.is_floating_point()
    # float32 holds the integers up to 2^24, so nearest leaves labels exact.
    out = F.grid_sample(image.to(grid.dtype), grid, mode=mode, padding_mode=padding_mode, align_corners=False)
    return out.to(image.dtype) if keep else out
