"""A simulated thorax: lungs, chest wall, ribs, mediastinum and vessels, for any window of any slice of a scan.

Lengths are mm, x grows to the right of the image and y downwards from the image's middle, z is DICOM's. Everything
follows from (seed, scan): a window gives the same tissue as the same place of the whole slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

__all__ = ["Anatomy", "Place", "random_generator", "smooth_noise"]

_CELL = 60.0  # mm: vessels are made in cells of this side, so that a window needs only its neighbourhood
_REACH = 60.0  # mm a vessel may leave its cell


class Place(NamedTuple):
    """Where a nodule lies and how far it reaches."""

    x: float
    y: float
    z: float
    radius: float


def random_generator(*key: int) -> np.random.Generator:
    """A generator of its own for every thing that is simulated, from the seed and the thing's numbers."""
    return np.random.default_rng([value & 0xFFFFFFFF for value in key])


def smooth_noise(x: np.ndarray, y: np.ndarray, z: float, wavelength: float, key: Sequence[int]) -> np.ndarray:
    """Smooth noise of unit variance at columns x (1, W) and rows y (H, 1): a sum of 12 random waves.

    It is a function of the place, so it is the same in every window. cos(a + b) splits into products, so the sum of
    the waves is one product of matrices.
    """
    random = random_generator(*key)
    direction = random.normal(size=(12, 3))
    wave = 2 * np.pi / wavelength * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    wave *= random.uniform(0.6, 1.4, (12, 1))
    phase = random.uniform(0, 2 * np.pi, 12) + wave[:, 2] * z
    across, down = np.outer(wave[:, 0], x) + phase[:, None], np.outer(y, wave[:, 1])  # (12, W), (H, 12)
    rows, columns = np.hstack([np.cos(down), np.sin(down)]), np.vstack([np.cos(across), -np.sin(across)])
    return (rows.astype(np.float32) @ columns.astype(np.float32)) * np.float32((2 / 12) ** 0.5)


class Anatomy:
    """The thorax of one scan.

    Args:
        seed, scan_id: which thorax.
        field_of_view: mm, the side of the image.
        z_range: lowest and highest slice, mm.
        nodules: the lungs are bent so that every nodule lies in one, some of them on the pleura.
    """

    def __init__(
        self, seed: int, scan_id: int, field_of_view: float, z_range: tuple[float, float], nodules: Sequence[Place]
    ) -> None:
        self.key = (seed, scan_id)
        self.field_of_view = field_of_view
        self.z_range = z_range
        random = random_generator(*self.key, 1)
        self.lung_hu = random.normal(-865, 18)
        self.gradient = random.uniform(0.0, 0.25)  # HU per mm towards the back
        self.texture = random.uniform(8, 22)
        self.blood = random.choice([45.0, random.uniform(120, 260)])  # with or without contrast agent
        self.vessels_per_cell = random.uniform(14, 24)
        half = field_of_view / 2
        self.body = (half * random.uniform(0.9, 0.99), half * random.uniform(0.66, 0.76))
        self.centers = ((-0.44 * half, -0.03 * half), (0.46 * half, -0.03 * half))
        self.axes = ((random.uniform(0.30, 0.36) * half, random.uniform(0.46, 0.56) * half),) * 2
        self.bumps: list[tuple[Place, float, float]] = []
        for number, place in enumerate(nodules):
            self._bend(place, random_generator(*self.key, 2, number))
        self._vessels_in = lru_cache(maxsize=4096)(self._make_vessels)

    def _bend(self, place: Place, random: np.random.Generator) -> None:
        """Push the pleura so that this nodule lies inside, at a depth of its own."""
        now = float(self.depth(np.array([[place.x]]), np.array([[place.y]]), place.z)[0, 0])
        on_pleura = random.random() < 0.3
        depth = place.radius * random.uniform(0.5, 1.1) if on_pleura else place.radius + random.uniform(4, 25)
        if now < depth or (on_pleura and now < 25):
            self.bumps.append((place, depth - now, max(22.0, 1.4 * abs(depth - now))))

    def depth(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """How deep inside a lung, mm; negative outside (about the distance to the pleura)."""
        low, high = self.z_range
        height = np.clip((z - low) / max(high - low, 1.0), 0.0, 1.0)
        shrink = 0.72 + 0.28 * np.sin(np.pi * np.clip(0.15 + 0.75 * height, 0, 1))
        depths = []
        for (cx, cy), (a, b) in zip(self.centers, self.axes):
            radius = np.sqrt(((x - cx) / (a * shrink)) ** 2 + ((y - cy) / (b * shrink)) ** 2)
            depths.append((1 - radius) * min(a, b) * shrink)
        depth = np.maximum(*depths) + 3.0 * smooth_noise(x, y, z, 70.0, (*self.key, 3))
        for place, amount, width in self.bumps:
            distance = (x - place.x) ** 2 + (y - place.y) ** 2 + 0.5 * (z - place.z) ** 2
            depth = depth + amount * np.exp(-distance / (2 * width**2))
        return np.asarray(depth, np.float32)

    def tissue(self, x: np.ndarray, y: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
        """(HU without nodules, share of lung 0..1) at columns x (1, W) and rows y (H, 1)."""
        depth = self.depth(x, y, z)
        inside = 1 / (1 + np.exp(np.clip(-depth / 0.45, -30, 30)))
        lung = self.lung_hu + self.gradient * y + self.texture * smooth_noise(x, y, z, 22.0, (*self.key, 4))
        lung = lung + 0.5 * self.texture * smooth_noise(x, y, z, 6.0, (*self.key, 5))
        vessel = self._draw_vessels(x, y, z)
        lung = lung + vessel * (self.blood * 0.6 + 20 - lung)
        wall = self._wall(x, y, z, -depth)
        return (wall + inside * (lung - wall)).astype(np.float32), inside.astype(np.float32)

    def _wall(self, x: np.ndarray, y: np.ndarray, z: float, outside: np.ndarray) -> np.ndarray:
        """What is not lung: muscle and fat, ribs along the pleura, heart and vessels between the lungs, air around."""
        layers = smooth_noise(x, y, z, 45.0, (*self.key, 6)) + 0.35 * np.sin(outside / 4.0)
        muscle = 50 + 8 * smooth_noise(x, y, z, 5.0, (*self.key, 7))
        fat = 1 / (1 + np.exp(-(layers - 0.25) * 6))
        hu = muscle - 155 * fat
        between = np.abs(x) < 0.16 * self.field_of_view
        heart = np.hypot(x + 0.03 * self.field_of_view, y + 0.02 * self.field_of_view) < 0.115 * self.field_of_view
        hu = np.where(between & heart, self.blood + 6 * smooth_noise(x, y, z, 8.0, (*self.key, 8)), hu)
        side = np.where(x < 0, -1.0, 1.0)
        angle = np.arctan2(y, (x - side * 0.22 * self.field_of_view) * side)
        rib = np.sin(7 * angle + z / 9.0 + 3 * side) - 0.55
        bone = (rib > 0) & (outside > 3.0) & (outside < 12.0) & (np.cos(angle) > -0.35)
        shell = np.minimum(np.minimum(outside - 3.0, 12.0 - outside) / 2.0, rib * 6)
        hu = np.where(bone, np.where(shell < 0.5, 650.0, 240.0), hu)
        spine = np.hypot(x, y - 0.23 * self.field_of_view)
        hu = np.where((spine < 18) & (outside > 0), np.where(spine > 15.5, 600.0, 190.0), hu)
        edge = np.sqrt((x / self.body[0]) ** 2 + (y / self.body[1]) ** 2)
        return np.where((edge > 1) & (outside > 34), -1000.0, np.where((edge > 0.93) & (outside > 18), -105.0, hu))

    def _make_vessels(self, i: int, j: int, k: int) -> np.ndarray:
        """Vessels that start in a cell, bent, tapering and forking twice: (n, 7) of a segment's ends and radius, mm."""
        random = random_generator(*self.key, 9, i, j, k)
        count = random.poisson(self.vessels_per_cell)
        point = (np.array([i, j, k]) + random.random((count, 3))) * _CELL
        radius = np.minimum(0.5 * random.pareto(2.0, count) + 0.42, 3.2)
        hilum = np.sign(point) * (0.1 * self.field_of_view, 0, 0)
        heading = _unit(_unit(point - hilum) + random.normal(0, 0.6, (count, 3)))
        segments = []
        for generation in range(3):
            if generation:  # fork: two thinner ones that leave at an angle
                shares = np.concatenate(
                    [random.uniform(0.75, 0.92, len(radius)), random.uniform(0.5, 0.75, len(radius))]
                )
                point, heading, radius = np.tile(point, (2, 1)), np.tile(heading, (2, 1)), np.tile(radius, 2) * shares
                heading = _unit(heading + random.normal(0, 0.45, heading.shape))
            for _ in range(3):
                end = point + heading * random.uniform(4, 8, (len(radius), 1))
                segments.append(np.column_stack([point, end, radius]))
                heading = _unit(heading + random.normal(0, 0.2, heading.shape))
                point, radius = end, radius * random.uniform(0.88, 0.98, len(radius))
        made = np.concatenate(segments).astype(np.float32)
        return made[made[:, 6] > 0.28]  # thinner ones would not show

    def _draw_vessels(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """Share of vessel 0..1 on the grid of columns x (1, W) and rows y (H, 1)."""
        bounds = [(x.min(), x.max()), (y.min(), y.max()), (z, z)]
        cells = [range(int((low - _REACH) // _CELL), int((high + _REACH) // _CELL) + 1) for low, high in bounds]
        parts = [self._vessels_in(i, j, k) for i in cells[0] for j in cells[1] for k in cells[2]]
        return draw_segments(np.concatenate(parts), x, y, z)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def draw_segments(segments: np.ndarray, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
    """Share 0..1 of round segments (n, 7) on the grid of columns x (1, W) and rows y (H, 1) at height z."""
    share = np.zeros((y.shape[0], x.shape[1]), np.float32)
    pixel = float(x[0, 1] - x[0, 0])
    low, high = np.minimum(segments[:, :3], segments[:, 3:6]), np.maximum(segments[:, :3], segments[:, 3:6])
    margin = segments[:, 6] + 1.0
    near = (low[:, 2] - margin < z) & (high[:, 2] + margin > z)
    for axis, grid in ((0, x), (1, y)):
        near &= (low[:, axis] - margin < grid.max()) & (high[:, axis] + margin > grid.min())
    for segment in segments[near]:
        start, end, radius = segment[:3], segment[3:6], float(segment[6])
        box = []
        for axis, grid in ((0, x[0]), (1, y[:, 0])):
            a, b = sorted((start[axis], end[axis]))
            box.append(slice(*np.searchsorted(grid, (a - radius - 1.0, b + radius + 1.0))))
        xs, ys = x[:, box[0]], y[box[1]]
        if not xs.size or not ys.size:
            continue
        along = end - start
        length = float(along @ along) + 1e-6
        t = ((xs - start[0]) * along[0] + (ys - start[1]) * along[1] + (z - start[2]) * along[2]) / length
        t = np.clip(t, 0.0, 1.0)
        squared = (xs - start[0] - t * along[0]) ** 2 + (ys - start[1] - t * along[1]) ** 2
        distance = np.sqrt(squared + (z - start[2] - t * along[2]) ** 2)
        value = 1 / (1 + np.exp(np.clip((distance - radius) / (0.35 * pixel), -30, 30)))
        window = share[box[1], box[0]]
        np.maximum(window, value, out=window)
    return share
