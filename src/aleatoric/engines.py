"""What connects multi-rater batches to MONAI's stock engines."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines.utils import PrepareBatch
from monai.utils import convert_to_tensor
from torch import Tensor

__all__ = ["PrepareMultiRaterBatch"]


class PrepareMultiRaterBatch(PrepareBatch):
    """Batch dict -> what ``SupervisedTrainer`` calls the network and the loss with.

    The network gets image, label and rater_valid through ``forward``, so that the hooks of DistributedDataParallel
    run; the loss gets the training output and the label.
    """

    def __call__(  # type: ignore[override]
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple, dict[str, Tensor]]:
        """{"image": (B, C, *S), "label": (B, R, *S), "rater_valid": (B, R)} -> image, label, (), keyword arguments."""
        image, label, rater_valid = (
            # MONAI's own transforms hand out MetaTensors, whose bookkeeping has no use in network and loss
            convert_to_tensor(batchdata[key]).to(device=device, non_blocking=non_blocking, **kwargs)
            for key in ("image", "label", "rater_valid")
        )
        return image, label, (), {"label": label, "rater_valid": rater_valid}
