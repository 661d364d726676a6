"""Many plausible segmentations of an image or a volume, all at once or piece after piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer
from torch import Tensor, nn

from ..errors import InputError
from ..pieces import within
from .sources import Source, open_source

__all__ = ["SamplingInferer"]

# Logits of a piece, 4 bytes each.
_PIECE_ELEMENTS = {"cpu": 1 << 24, "accelerator": 1 << 27}


class SamplingInferer(Inferer):
    """Draw ``num_samples`` segmentations of an image, of a volume window by window.

    A sample is a segmentation of the WHOLE volume, so no window may draw for itself. What windows share depends on the
    network:

    - ``maps`` and ``sample_maps`` (``StochasticSegmentationNetwork``): the windows' means, diagonals and factors are
      stitched into one law over the volume, which is sampled once, at the end (Monteiro et al. 2020, section 5.3).
    - one latent vector (``ProbabilisticUNet``): one z per sample for all windows, drawn from the prior given the
      features of the whole volume: the mean of the windows' features, in which each voxel counts once.
    - latent maps at several scales (``HierarchicalProbabilisticUNet``, ``PHiSeg``): a latent pixel belongs to a place,
      so that windows would have to share parts of maps. Such a network sees each slice, or the whole volume, at once,
      whatever ``roi_size`` says, and draws with the same noise in every slice.
    - all others (members, Monte-Carlo dropout): every window draws with the same noise, so that sample n of one window
      goes with sample n of the next.

    A network of unpadded convolutions (an int attribute ``margin`` m > 0) gets windows that are larger by m voxels at
    each side, cut from the volume after padding it (``padding_mode`` and ``cval`` of the volume inferer), and the
    answer has the volume's own size: ``roi_size`` is what a window gives, not what it sees. Where a part of the network
    has an ``output_multiple``, the windows' sides and steps are rounded up to it, so that all windows share one grid
    and the answer does not depend on their size; they need no ``overlap``.

    Args:
        num_samples: N.
        seed: makes every call draw the same noise, whatever was drawn before it; None: torch's own random state.
        temperature: factor on the spread of what the network draws; at 0 all samples are alike.
        volume_inferer: how to walk through a volume: MONAI's ``SliceInferer`` for a network of fewer spatial
            dimensions, ``SlidingWindowInferer`` for large images. None: the network sees the image as it is (and gives
            less than it, if it is unpadded). A ``SliceInferer`` lets 2D images pass as they are.

    Raises:
        ValueError: ``num_samples`` is less than 1.
        InputError: a negative temperature.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int | None = None,
        temperature: float = 1.0,
        volume_inferer: SlidingWindowInferer | None = None,
    ) -> None:
        super().__init__()
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}, but at least one sample must be drawn.")
        if not temperature >= 0:  # NaN too
            raise InputError(f"temperature is {temperature}, but 0 or more is expected: give e.g. 0.5 for less spread.")
        self.num_samples = num_samples
        self.seed = seed
        self.temperature = temperature
        self.volume_inferer = volume_inferer

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Image (B, C, *S) -> logits (B, N, K, *S); a MetaTensor's metadata is kept."""
        (logits,) = self.pieces(inputs, network, self.num_samples)
        return MetaTensor(logits, meta=inputs.meta) if isinstance(inputs, MetaTensor) else logits

    def pieces(self, inputs: Tensor, network: Callable[..., Tensor], piece_size: int | None = None) -> Iterator[Tensor]:
        """The samples of ``__call__``, some after the other, so that they need not all be held at once.

        What samples share runs once (backbone and prior, members, the image's contracting path, a law's maps), before
        the first piece or with it. The pieces' noise is that of ``__call__`` with the same seed; put together they are
        its answer, up to the rounding of another batch size. With a seed, what the consumer draws between two pieces
        changes nothing. The network is in eval mode and no gradient is recorded while a piece is made, and only then.

        All samples come in one piece from networks without ``sample_pieces``, such as exported ones, that are neither
        a law of maps nor one latent vector. Of a volume that is walked in windows, what they share is kept for every
        window until the last piece.

        Args:
            inputs: (B, C, *S).
            network: a segmenter.
            piece_size: n, samples of each image a piece; None: so many that a piece takes about 64 MB on a CPU, 512 MB
                on an accelerator, and one at least.

        Returns:
            logits (B, n, K, *S), plain tensors; the last piece may hold fewer.

        Raises:
            InputError: ``piece_size`` is less than 1.
        """
        check_piece_size(piece_size)
        return self._pieces(*self._open(inputs, network, piece_size))

    def _open(self, inputs: Tensor, network: Any, piece_size: int | None) -> tuple[Any, Source, int]:
        sampler = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        with inference_of(sampler):
            source = open_source(image, sampler, self.volume_inferer, self.seed)
        return sampler, source, min(piece_size or _fitting(image, sampler), self.num_samples)

    def _pieces(self, sampler: Any, source: Source, piece_size: int) -> Iterator[Tensor]:
        return within(partial(inference_of, sampler), source.pieces(self.num_samples, self.temperature, piece_size))


def check_piece_size(piece_size: int | None) -> None:
    """Raises InputError where it is less than 1."""
    if piece_size is not None and piece_size < 1:
        raise InputError(f"piece_size is {piece_size}, but a piece holds at least one sample: give 1 or more.")


@contextmanager
def inference_of(network: Any) -> Iterator[None]:
    """The network in eval mode, and no gradients; afterwards each module is in the mode that it was in.

    MONAI's ``eval_mode`` would leave parts in training mode that are frozen within a network that is not.
    """
    training = [part for part in network.modules() if part.training] if isinstance(network, nn.Module) else []
    try:
        for part in training:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


def _fitting(image: Tensor, network: Any) -> int:
    """How many samples of each image fit into a piece."""
    parts: tuple[Any, ...] = (network, getattr(network, "head", None), getattr(network, "backbone", None))
    channels = next((part.out_channels for part in parts if hasattr(part, "out_channels")), 1)
    sample = channels * image[:, 0].numel()
    fitting = _PIECE_ELEMENTS["cpu" if image.device.type == "cpu" else "accelerator"] // max(1, sample)
    return max(1, fitting // 2 * 2)  # on a CPU networks decode two at a time
