"""A small prepared data set for the tests of loaders."""

from __future__ import annotations

import numpy as np

from aleatoric.data import PreparedDatasetWriter

SIZE = (8, 8)


def write_dataset(folder, image_dtype="int16"):
    writer = PreparedDatasetWriter(
        folder,
        name="toy",
        source="made up",
        options={},
        channels=["ct"],
        classes=["background", "nodule"],
        raters=3,
        intensity_window=(-1000, 400),
        image_dtype=image_dtype,
        patch_size=SIZE,
    )
    random = np.random.default_rng(0)
    for patient in "abcdefgh":
        images = random.integers(-3000, 2000, (3, 1, *SIZE))
        labels = random.integers(0, 2, (3, 3, *SIZE))
        valid = random.integers(0, 2, (3, 3)).astype(bool)
        cases = [{"case": f"{patient}{i}", "patient": patient, "slice": i} for i in range(3)]
        writer.write(patient, images, labels, valid, cases)
    return writer.finish()
