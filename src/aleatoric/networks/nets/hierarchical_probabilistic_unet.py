"""The Hierarchical Probabilistic U-Net: two hierarchical cores and a last layer, this is their composition."""

from __future__ import annotations

from typing import Optional

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from ...errors import InputError
from ...outputs import LadderOutput
from ..blocks.ladder import HierarchicalCore
from ..blocks.raters import check_label, draw_rater, encode_label
from ..blocks.residual import initialize_orthogonal

__all__ = ["HierarchicalProbabilisticUNet"]


class HierarchicalProbabilisticUNet(nn.Module):
    r"""Segmenter with latent maps at several scales of its decoder, :math:`p(y | z, x) \prod_i p(z_i | z_{<i}, x)`.

    Kohl et al., "A Hierarchical Probabilistic U-Net for Modeling Multi-Scale Ambiguities" (2019). The image's own
    contracting path is shared by prior and decoder; the posterior is a second core whose draws the first one decodes.

    Args:
        prior: sees the image, decodes to features of the image's size.
        posterior: sees the image and one rater's label; of the same latent maps, without a decoder behind them.
        out_channels: K class channels.
        spatial_dims: 2 or 3.
        bf16: run everything but the densities in bfloat16 under autocast, on any device.

    Raises:
        InputError: latent maps of prior and posterior differ; a label or a given latent map does not fit.
    """

    def __init__(
        self,
        prior: HierarchicalCore,
        posterior: HierarchicalCore,
        out_channels: int = 1,
        spatial_dims: int = 2,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        if prior.latent_dims != posterior.latent_dims:
            raise InputError(
                f"the prior has latent maps of {list(prior.latent_dims)} channels and the posterior of "
                f"{list(posterior.latent_dims)}, but they must be the same: give both one latent_dims."
            )
        self.prior = prior
        self.posterior = posterior
        self.out_channels = out_channels
        self.head = Conv[Conv.CONV, spatial_dims](prior.out_channels, out_channels, kernel_size=1)
        self.bf16 = bf16
        initialize_orthogonal(self.head)

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
        with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self._sample(image, num_samples, temperature, chunk_size)

    def _sample(self, image: Tensor, num_samples: int, temperature: float, chunk_size: int) -> Tensor:
        skips = self.prior.contract(image)
        noise = self.prior.noise(skips, num_samples, temperature)
        if chunk_size > 0 or image.device.type != "cpu":
            return self._expand(skips, noise, chunk_size if chunk_size > 0 else num_samples)
        # one image and two samples at a time stay in a CPU's cache from layer to layer
        parts: list[Tensor] = []
        for b in range(image.shape[0]):
            parts.append(self._expand([s[b : b + 1] for s in skips], [n[b : b + 1] for n in noise], 2))
        return torch.cat(parts, dim=0)

    def _expand(self, skips: list[Tensor], noise: list[Tensor], chunk_size: int) -> Tensor:
        # skips (B, F, *s), noise (B, N, c, *s) -> (B, N, K, *S), chunk_size samples of all B images at a time
        nothing: list[Optional[Tensor]] = [None for _ in noise]
        chunks: list[Tensor] = []
        for start in range(0, noise[0].shape[1], chunk_size):
            part = [n[:, start : start + chunk_size] for n in noise]
            batch, count = part[0].shape[0], part[0].shape[1]
            repeated = [s.repeat_interleave(count, dim=0) for s in skips]  # (B * n, F, *s)
            x = self.prior.expand(repeated, [n.flatten(0, 1) for n in part], nothing)[0]
            chunks.append(self.head(x).float().unflatten(0, [batch, count]))
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
        with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self._decode(image, latents, temperature)

    def _decode(self, image: Tensor, latents: list[Optional[Tensor]], temperature: float) -> Tensor:
        skips = self.prior.contract(image)
        noise = [n[:, 0] for n in self.prior.noise(skips, 1, temperature)]
        if not torch.jit.is_scripting():
            self._check_latents(noise, latents)
        return self.head(self.prior.expand(skips, noise, latents)[0]).float()

    @torch.jit.unused
    def _check_latents(self, noise: list[Tensor], latents: list[Optional[Tensor]]) -> None:
        expected = [tuple(n.shape) for n in noise]
        found = [None if z is None else tuple(z.shape) for z in latents]
        if len(found) != len(expected) or any(z is not None and z != e for z, e in zip(found, expected)):
            raise InputError(
                f"the given latents have shapes {found}, expected {expected}, coarsest first: give one of these or "
                f"None for each latent map."
            )

    @torch.jit.unused
    def compile_parts(self, **options: object) -> HierarchicalProbabilisticUNet:
        """``torch.compile`` the residual blocks in place, and nothing else (densities stay eager)."""
        for core in (self.prior, self.posterior):
            for blocks in (*core.contracting, *core.latent_levels, *core.plain_levels):
                blocks.compile(**options)
        return self

    @torch.jit.unused
    def _train_on(self, image: Tensor, label: Tensor, rater_valid: Tensor | None) -> LadderOutput:
        check_label(image, label)
        self.prior.check_size(image)
        if rater_valid is None:
            rater_valid = torch.ones(label.shape[:2], dtype=torch.bool, device=label.device)
        index = torch.arange(label.shape[0], device=label.device)
        rater = draw_rater(rater_valid)  # (B,)
        shown, valid = label[index, rater].unsqueeze(1), rater_valid[index, rater].unsqueeze(1)
        with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            pair = torch.cat([image, encode_label(shown, self.out_channels, image.dtype)[:, 0]], dim=1)
            skips = self.posterior.contract(pair)
            noise = [n[:, 0] for n in self.posterior.noise(skips, 1)]
            _, draws, locs, scales = self.posterior.expand(skips, noise, [None] * len(noise))
            posteriors = self.posterior.distributions(locs, scales)
            x, _, locs, scales = self.prior.expand(self.prior.contract(image), [], list(draws))
            priors = self.prior.distributions(locs, scales)
            logits = self.head(x).float()
        return LadderOutput(logits, rater, rater * 0, priors, posteriors, [z.unsqueeze(1) for z in draws], valid)
