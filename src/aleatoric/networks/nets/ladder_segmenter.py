"""What segmenters with latent maps at several scales share: sampling, decoding given maps, training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional, cast

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...outputs import LadderOutput
from ...precision import autocast_to_bf16
from ..blocks.ladder import LatentLadder
from ..blocks.raters import check_label, draw_rater, encode_label, present_raters

__all__ = ["LadderSegmenter"]


class LadderSegmenter(nn.Module):
    """A conditional segmenter whose latent maps are drawn one given the other, coarsest first.

    A subclass turns features, noise and given latent maps into logits (:meth:`_logits`), and what the prior decoded
    into those of the training output (:meth:`_training_logits`). Of prior and posterior ``contract(image)`` is computed
    once per image, and ``expand(features, noise, latents)`` gives draws, means and standard deviations last.

    Args:
        prior: sees the image.
        posterior: sees the image and one rater's label; of the same latent maps.
        out_channels: K class channels.
        bf16: run everything but the densities in bfloat16 under autocast, on any device.

    Raises:
        InputError: latent maps of prior and posterior differ; a label or a given latent map does not fit.
    """

    if TYPE_CHECKING:  # TorchScript would take it for an attribute's type
        prior: LatentLadder
        posterior: LatentLadder

    def __init__(self, prior: LatentLadder, posterior: LatentLadder, out_channels: int, bf16: bool = False) -> None:
        super().__init__()
        if prior.latent_dims != posterior.latent_dims:
            raise InputError(
                f"the prior has latent maps of {list(prior.latent_dims)} channels and the posterior of "
                f"{list(posterior.latent_dims)}, but they must be the same: give both one latent_dims."
            )
        self.prior = prior
        self.posterior = posterior
        self.out_channels = out_channels
        self.bf16 = bf16

    def forward(self, image: Tensor, label: Optional[Tensor] = None, rater_valid: Optional[Tensor] = None) -> Tensor:
        """One draw for an image, or the training output where labels are given.

        Args:
            image: (B, C, *S).
            label: (B, R, *S) integer class maps, one per rater.
            rater_valid: (B, R), False where a rater is missing; default all present.

        Returns:
            logits (B, K, *S) of one prior draw; with ``label``: :class:`..outputs.LadderOutput` of one random rater.
        """
        if not torch.jit.is_scripting():
            if label is not None:
                return self._train_on(image, label, rater_valid)  # type: ignore[return-value]
        return self.sample(image, 1, 1.0, 0)[:, 0]  # TorchScript wants every argument

    @torch.jit.export
    def sample(self, image: Tensor, num_samples: int, temperature: float = 1.0, chunk_size: int = 0) -> Tensor:
        """Draw segmentations; the contracting path runs once, from the first latent map on once per sample.

        Args:
            image: (B, C, *S).
            num_samples: N.
            temperature: factor on every map's standard deviation; 0: each map is its mean given the mean above.
            chunk_size: samples decoded at a time, which bounds the memory and changes no number; 0: all on an
                accelerator, on a CPU as many as its caches hold.

        Returns:
            logits (B, N, K, *S), float32.
        """
        if torch.jit.is_scripting():
            return self._sample(image, num_samples, temperature, chunk_size)
        with autocast_to_bf16(image.device.type, self.bf16):
            return self._sample(image, num_samples, temperature, chunk_size)

    def _sample(self, image: Tensor, num_samples: int, temperature: float, chunk_size: int) -> Tensor:
        features = self.prior.contract(image)
        noise = self.prior.noise(features, num_samples, temperature)
        return self._expand_all(features, noise, list(image.shape[2:]), chunk_size)

    @torch.jit.unused
    def sample_pieces(
        self, image: Tensor, num_samples: int, temperature: float = 1.0, piece_size: int = 1
    ) -> Iterator[Tensor]:
        """What :meth:`sample` draws, ``piece_size`` samples after the other: the image is contracted once.

        The noise of all samples' latent maps is drawn with the first piece, and kept.

        Args:
            image: (B, C, *S).
            num_samples: N, of all pieces.
            temperature: as there.
            piece_size: n.

        Returns:
            logits (B, n, K, *S), float32; the last piece may hold fewer.
        """
        with autocast_to_bf16(image.device.type, self.bf16):
            features = self.prior.contract(image)
            noise = self.prior.noise(features, num_samples, temperature)
        for start in range(0, num_samples, piece_size):
            with autocast_to_bf16(image.device.type, self.bf16):
                part = [n[:, start : start + piece_size] for n in noise]
                piece = self._expand_all(features, part, list(image.shape[2:]), 0)
            yield piece
            del piece

    def _expand_all(self, features: list[Tensor], noise: list[Tensor], size: list[int], chunk_size: int) -> Tensor:
        if chunk_size > 0 or features[0].device.type != "cpu":
            return self._expand(features, noise, size, chunk_size if chunk_size > 0 else noise[0].shape[1])
        # one image and two samples at a time stay in a CPU's cache from layer to layer
        parts: list[Tensor] = []
        for b in range(features[0].shape[0]):
            parts.append(self._expand([f[b : b + 1] for f in features], [n[b : b + 1] for n in noise], size, 2))
        return torch.cat(parts, dim=0)

    def _expand(self, features: list[Tensor], noise: list[Tensor], size: list[int], chunk_size: int) -> Tensor:
        # features (B, F, *s), noise (B, N, c, *s) -> (B, N, K, *S), chunk_size samples of all B images at a time
        nothing: list[Optional[Tensor]] = [None for _ in noise]
        chunks: list[Tensor] = []
        for start in range(0, noise[0].shape[1], chunk_size):
            part = [n[:, start : start + chunk_size] for n in noise]
            batch, count = part[0].shape[0], part[0].shape[1]
            repeated = [f.repeat_interleave(count, dim=0) for f in features]  # (B * n, F, *s)
            logits = self._logits(repeated, [n.flatten(0, 1) for n in part], nothing, size)
            chunks.append(logits.unflatten(0, [batch, count]))
        return torch.cat(chunks, dim=1)

    @torch.jit.export
    def decode(self, image: Tensor, latents: list[Optional[Tensor]], temperature: float = 1.0) -> Tensor:
        """Logits (B, K, *S) of given latent maps; those that are None are drawn given the maps above them.

        Args:
            image: (B, C, *S).
            latents: coarsest first, one entry per latent map: z (B, c, *s) or None.
            temperature: factor on the standard deviation of those that are drawn.
        """
        if torch.jit.is_scripting():
            return self._decode(image, latents, temperature)
        with autocast_to_bf16(image.device.type, self.bf16):
            return self._decode(image, latents, temperature)

    def _decode(self, image: Tensor, latents: list[Optional[Tensor]], temperature: float) -> Tensor:
        features = self.prior.contract(image)
        noise = [n[:, 0] for n in self.prior.noise(features, 1, temperature)]
        if not torch.jit.is_scripting():
            self._check_latents(noise, latents)
        return self._logits(features, noise, latents, list(image.shape[2:]))

    @torch.jit.unused
    def _check_latents(self, noise: list[Tensor], latents: list[Optional[Tensor]]) -> None:
        expected = [tuple(n.shape) for n in noise]
        found = [None if z is None else tuple(z.shape) for z in latents]
        if len(found) != len(expected) or any(z is not None and z != e for z, e in zip(found, expected)):
            raise InputError(
                f"the given latents have shapes {found}, expected {expected}, coarsest first: give one of these or "
                f"None for each latent map."
            )

    def _logits(
        self, features: list[Tensor], noise: list[Tensor], latents: list[Optional[Tensor]], size: list[int]
    ) -> Tensor:
        # features of the image (M, F, *s), noise and given maps (M, c, *s) -> logits (M, K, *size), float32
        raise NotImplementedError

    @torch.jit.unused
    def _training_logits(self, decoded: Any, size: list[int]) -> tuple[Tensor, Sequence[Tensor]]:
        # the first that the prior's `expand` gives -> logits (B, K, *size), float32, and those of each level, if any
        raise NotImplementedError

    @torch.jit.unused
    def _train_on(self, image: Tensor, label: Tensor, rater_valid: Tensor | None) -> LadderOutput:
        check_label(image, label)
        self.prior.check_size(image)
        rater_valid = present_raters(label, rater_valid)
        index = torch.arange(label.shape[0], device=label.device)
        rater = draw_rater(rater_valid)  # (B,)
        shown = encode_label(label[index, rater].unsqueeze(1), self.out_channels, image.dtype)[:, 0]
        prior, posterior = cast(Any, self.prior), cast(Any, self.posterior)  # `expand` is the subclass's
        with autocast_to_bf16(image.device.type, self.bf16):
            features = posterior.contract(torch.cat([image, shown], dim=1))
            noise = [n[:, 0] for n in posterior.noise(features, 1)]
            *_, draws, locs, scales = posterior.expand(features, noise, [None] * len(noise))
            posteriors = posterior.distributions(locs, scales)
            decoded, *_, locs, scales = prior.expand(prior.contract(image), [], list(draws))
            priors = prior.distributions(locs, scales)
            logits, levels = self._training_logits(decoded, list(image.shape[2:]))
        return LadderOutput(
            logits,
            rater,
            rater * 0,
            priors,
            posteriors,
            [z.unsqueeze(1) for z in draws],
            rater_valid[index, rater].unsqueeze(1),
            levels,
        )
