"""What inference must do to a brain MR so that the network gets what it was trained on."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey
from monai.utils.type_conversion import convert_to_dst_type

from ...errors import InputError
from .tree import SEQUENCES
from .volumes import WINDOW, normalised

__all__ = ["NormalizeBratsd"]

logger = logging.getLogger(__name__)


class NormalizeBratsd(MapTransform):
    """A BraTS image (flair, t1, t1ce, t2, exact zeros outside of the brain) as the loaders give a prepared one.

    The paper's normalisation (:func:`.volumes.normalised`) in the prepared set's own steps, mapped to [0, 1]: equal to
    the prepared image bit for bit, 0 in every channel outside of the brain and nowhere else.

    Args:
        keys: of the image, (4, *S), the whole volume.
        allow_missing_keys: skip keys that the data lacks.

    Raises:
        InputError: not four channels; NaN; no brain; a channel without contrast.
    """

    def __init__(self, keys: KeysCollection = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise the entries; metadata stays."""
        result = dict(data)
        low, high = WINDOW
        for key in self.key_iterator(result):
            image = result[key]
            array = np.asarray(torch.as_tensor(image).cpu())
            source = getattr(image, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, str(key))
            if len(array) != len(SEQUENCES):
                raise InputError(
                    f"{source} has {len(array)} channels, {len(SEQUENCES)} expected ({', '.join(SEQUENCES)}); give the "
                    "four files of each case, or one file of four channels."
                )
            if (array != 0).any(axis=0).all():
                logger.warning(
                    "%s has no voxel that is 0 in every channel: it does not look as if all but the brain was taken "
                    "off, and the network knows nothing else.",
                    source,
                )
            stored = torch.from_numpy(normalised(array, [f"channel {name} of {source}" for name in SEQUENCES]))
            # as the loaders do it, to the last bit
            unit = stored.float().sub_(low).mul_(1.0 / (high - low)).clamp_(0.0, 1.0)
            result[key] = convert_to_dst_type(unit, torch.as_tensor(image).float())[0]
        return result
