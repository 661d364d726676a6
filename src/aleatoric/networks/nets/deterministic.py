"""Networks without a density: what the baselines of every comparison share, and the plain deterministic one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...outputs import MemberOutput
from ...pieces import within
from ...precision import autocast_to_bf16
from ..blocks.raters import check_label, present_raters

__all__ = ["DeterministicSegmentationNetwork", "MemberNetwork", "mean_prediction"]


class MemberNetwork(nn.Module):
    """What segmenters share whose samples are the answers of M fixed members, or of one that is perturbed.

    ``network(image)`` is the mean prediction: the logits of the members' mean probabilities. ``temperature`` means
    for all of them: the factor on a sample's deviation from the mean prediction, in logits. At 1 the samples are what
    they are, at 0 each is the mean prediction.

    A subclass gives ``members`` and, where it perturbs a network, ``draw`` and ``draw_pieces``.

    Args:
        bf16: run the network in bfloat16 under autocast, on any device; logits stay float32.
        margin: voxels that unpadded convolutions take from each side of the image.
    """

    def __init__(self, bf16: bool = False, margin: int = 0) -> None:
        super().__init__()
        self.bf16 = bf16
        self.margin = margin

    def forward(self, image: Tensor, label: Optional[Tensor] = None, rater_valid: Optional[Tensor] = None) -> Tensor:
        """The mean prediction for an image, or the training output where labels are given.

        Args:
            image: (B, C, *S).
            label: (B, R, *S) integer class maps, one per rater.
            rater_valid: (B, R), False where a rater is missing; default all present.

        Returns:
            logits (B, K, *S), each side shorter by twice the margin; with ``label``: :class:`..outputs.MemberOutput`.
        """
        if torch.jit.is_scripting():
            return mean_prediction(self.members(image, 0))
        if label is not None:
            return self._train_on(image, label, rater_valid)  # type: ignore[return-value]
        with autocast_to_bf16(image.device.type, self.bf16):
            return mean_prediction(self.members(image, 0))

    @torch.jit.export
    def sample(self, image: Tensor, num_samples: int, temperature: float = 1.0, chunk_size: int = 0) -> Tensor:
        """Segmentations: those of the members in turn, or of the network under random perturbations.

        Args:
            image: (B, C, *S).
            num_samples: N.
            temperature: factor on the samples' deviation from the mean prediction, in logits.
            chunk_size: perturbed passes at a time, which bounds the memory and changes no number; 0: all on an
                accelerator, two on a CPU. Fixed members run one after the other.

        Returns:
            logits (B, N, K, *S), float32; equal samples may share memory.
        """
        if torch.jit.is_scripting():
            return self._sample(image, num_samples, temperature, chunk_size)
        with autocast_to_bf16(image.device.type, self.bf16):
            return self._sample(image, num_samples, temperature, chunk_size)

    @torch.jit.unused
    def sample_pieces(
        self, image: Tensor, num_samples: int, temperature: float = 1.0, piece_size: int = 1
    ) -> Iterator[Tensor]:
        """What :meth:`sample` draws, ``piece_size`` samples after the other, as (B, n, K, *S).

        Members, and what perturbed passes share, run once. Noise is drawn as the pieces are asked for.

        Args:
            image: (B, C, *S).
            num_samples: N, of all pieces; the last piece may hold fewer.
            temperature: as there.
            piece_size: n.
        """
        pieces = self._pieces(image, num_samples, temperature, piece_size)
        return within(partial(autocast_to_bf16, image.device.type, self.bf16), pieces)

    @torch.jit.unused
    def _pieces(self, image: Tensor, num_samples: int, temperature: float, piece_size: int) -> Iterator[Tensor]:
        sizes = [min(piece_size, num_samples - start) for start in range(0, num_samples, piece_size)]
        if temperature == 1.0:
            yield from self.draw_pieces(image, sizes)
            return
        mean = mean_prediction(self.members(image, 0)).unsqueeze(1)
        if temperature == 0.0:
            yield from (mean.expand([-1, size] + [-1] * (mean.dim() - 2)) for size in sizes)
            return
        # unlike a loop or a generator expression, `map` holds no piece while the next one is made
        yield from map(lambda piece: mean + temperature * (piece - mean), self.draw_pieces(image, sizes))  # noqa: C417

    @torch.jit.unused
    def draw_pieces(self, image: Tensor, sizes: list[int]) -> Iterator[Tensor]:
        """What :meth:`draw` draws, as many samples at a time as ``sizes`` says."""
        members, start = self.members(image, sum(sizes)), 0
        for size in sizes:
            yield _in_turn(members, start, size)
            start += size

    def members(self, image: Tensor, count: int) -> Tensor:
        """At least the first ``count`` members' answers (all for 0): (B, C, *S) -> logits (B, M, K, *S), float32."""
        raise NotImplementedError

    def draw(self, image: Tensor, num_samples: int, chunk_size: int) -> Tensor:
        """Samples at temperature 1, (B, N, K, *S): sample n is the answer of member n mod M."""
        return _in_turn(self.members(image, num_samples), 0, num_samples)

    def _sample(self, image: Tensor, num_samples: int, temperature: float, chunk_size: int) -> Tensor:
        if temperature == 1.0:
            return self.draw(image, num_samples, chunk_size)
        mean = mean_prediction(self.members(image, 0)).unsqueeze(1)
        if temperature == 0.0:
            return mean.expand([-1, num_samples] + [-1] * (mean.dim() - 2))
        return mean + temperature * (self.draw(image, num_samples, chunk_size) - mean)

    @torch.jit.unused
    def _train_on(self, image: Tensor, label: Tensor, rater_valid: Tensor | None) -> MemberOutput:
        check_label(image, label)
        with autocast_to_bf16(image.device.type, self.bf16):
            return MemberOutput(self.members(image, 0), present_raters(label, rater_valid))


class DeterministicSegmentationNetwork(MemberNetwork):
    """One answer per image: the baseline that says what sampling is worth.

    The deterministic U-Net of Monteiro et al., "Stochastic Segmentation Networks" (2020), Table 1, and with DeepMedic
    that of Table 2. Its N samples are equal.

    Args:
        backbone: image (B, C, *S) -> features (B, F, *S).
        head: features -> logits (B, K, *S), e.g. a 1x1 convolution; None: the backbone gives logits itself, as the
            networks of ``monai.networks.nets`` do.
        bf16: run both in bfloat16 under autocast, on any device.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module | None = None, bf16: bool = False) -> None:
        super().__init__(bf16, int(getattr(backbone, "margin", 0)))
        self.backbone = backbone
        self.head = nn.Identity() if head is None else head

    def members(self, image: Tensor, count: int) -> Tensor:
        """The answer, M = 1: (B, C, *S) -> (B, 1, K, *S)."""
        return self.head(self.backbone(image)).float().unsqueeze(1)


def mean_prediction(members: Tensor) -> Tensor:
    """Logits of the mean over the members' probabilities: (B, M, K, *S) -> (B, K, *S); of one member its own."""
    if members.shape[1] == 1:
        return members[:, 0]
    if members.shape[2] == 1:
        return F.logsigmoid(members).logsumexp(1) - F.logsigmoid(-members).logsumexp(1)
    return members.log_softmax(2).logsumexp(1) - math.log(members.shape[1])


def _in_turn(members: Tensor, start: int, count: int) -> Tensor:
    # (B, M, K, *S) -> (B, n, K, *S): samples ``start`` and following, sample n is member n mod M
    if members.shape[1] == 1:
        return members.expand([-1, count] + [-1] * (members.dim() - 2))
    return members[:, torch.arange(start, start + count, device=members.device) % members.shape[1]]
