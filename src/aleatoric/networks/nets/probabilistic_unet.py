"""The Probabilistic U-Net family: backbone, prior, posterior and head are parts, this is their composition."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...errors import InputError
from ...outputs import VariationalOutput
from ...precision import autocast_to_bf16
from ..blocks.densities import ConditionalDensity
from ..blocks.heads import FeatureCombiner
from ..blocks.raters import check_label, draw_rater, encode_label, present_raters

__all__ = ["ProbabilisticUNet"]


class ProbabilisticUNet(nn.Module):
    r"""Conditional latent-variable segmenter :math:`p(y | x) = \int p(y | x, z) \, p(z | x) \, dz`.

    Kohl et al., "A Probabilistic U-Net for Segmentation of Ambiguous Images" (2018). Which member of the family it is
    (PU-Net, SPU-Net, cSAE, generalized PU-Net ...) is the choice of the densities and of the objective.

    Args:
        backbone: image (B, C, *S) -> features (B, F, *S).
        prior: p(z | x), sees the image.
        posterior: q(z | x, y), sees the image and one rater's label.
        head: (features, z) -> logits (B, K, *S).
        all_raters: compute the posterior of every rater in one batched pass (objectives on the aggregated posterior
            need them); else of one random valid rater per image, which costs one pass.
        bf16: run backbone, encoders and head in bfloat16 under autocast, on any device. Densities stay float32.

    Raises:
        InputError: latent dimensions or channels of the parts disagree; an image or label does not fit the network.
    """

    def __init__(
        self,
        backbone: nn.Module,
        prior: ConditionalDensity,
        posterior: ConditionalDensity,
        head: FeatureCombiner,
        all_raters: bool = False,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        if not prior.latent_dim == posterior.latent_dim == head.latent_dim:
            raise InputError(
                f"the prior has {prior.latent_dim} latent dimensions, the posterior {posterior.latent_dim} and the "
                f"head {head.latent_dim}, but they must be the same: give all three one latent_dim."
            )
        self.backbone = backbone
        self.prior = prior
        self.posterior = posterior
        self.head = head
        self.all_raters = all_raters
        self.bf16 = bf16

    def forward(self, image: Tensor, label: Optional[Tensor] = None, rater_valid: Optional[Tensor] = None) -> Tensor:
        """One draw for an image, or the training output where labels are given.

        Args:
            image: (B, C, *S).
            label: (B, R, *S) integer class maps, one per rater.
            rater_valid: (B, R), False where a rater is missing; default all present.

        Returns:
            logits (B, K, *S) of one prior draw; with ``label``: :class:`..outputs.VariationalOutput`.
        """
        if not torch.jit.is_scripting():
            if label is not None:
                return self._train_on(image, label, rater_valid)  # type: ignore[return-value]
        return self.sample(image, 1, 1.0, 0)[:, 0]  # TorchScript wants every argument

    @torch.jit.export
    def sample(self, image: Tensor, num_samples: int, temperature: float = 1.0, chunk_size: int = 0) -> Tensor:
        """Draw segmentations; backbone and prior run once, a sample costs the head's small layers only.

        Args:
            image: (B, C, *S).
            num_samples: N.
            temperature: factor on the prior's standard deviation.
            chunk_size: samples decoded at a time, which bounds the memory; 0: all on an accelerator, on a CPU as many
                as its caches hold.

        Returns:
            logits (B, N, K, *S), float32.
        """
        if torch.jit.is_scripting():
            return self._sample(image, num_samples, temperature, chunk_size)
        with autocast_to_bf16(image.device.type, self.bf16):
            return self._sample(image, num_samples, temperature, chunk_size)

    def _sample(self, image: Tensor, num_samples: int, temperature: float, chunk_size: int) -> Tensor:
        prior_features = self.prior.features(image).unsqueeze(1).expand(-1, num_samples, -1)  # (B, N, F)
        z = self.prior.density.draw(prior_features, temperature)  # (B, N, d)
        return self.decode(self.backbone(image), z, chunk_size)

    @torch.jit.export
    def decode(self, features: Tensor, z: Tensor, chunk_size: int = 0) -> Tensor:
        """Logits of given latents: features (B, F, *S), z (B, N, d) -> (B, N, K, *S), float32."""
        batch, num_samples = z.shape[0], z.shape[1]
        shared = self.head.shared(features)  # (B, H, *S)
        bias = self.head.bias_of(z.flatten(0, 1)).unflatten(0, [batch, num_samples])  # (B, N, H)
        if chunk_size > 0 or features.device.type != "cpu":
            return self._finish(shared, bias, chunk_size if chunk_size > 0 else num_samples)
        # one image and two samples at a time stay in a CPU's cache from layer to layer: the head is much faster
        parts = [self._finish(shared[b : b + 1], bias[b : b + 1], 2) for b in range(batch)]
        return torch.cat(parts, dim=0)

    def _finish(self, shared: Tensor, bias: Tensor, chunk_size: int) -> Tensor:
        # shared (B, H, *S), bias (B, N, H) -> (B, N, K, *S), chunk_size samples of all B images at a time
        chunks: list[Tensor] = []
        for start in range(0, bias.shape[1], chunk_size):
            part = bias[:, start : start + chunk_size]
            repeated = shared.repeat_interleave(part.shape[1], dim=0)  # (B * n, H, *S)
            logits = self.head.finish(repeated, part.flatten(0, 1)).float()
            chunks.append(logits.unflatten(0, [bias.shape[0], part.shape[1]]))
        return torch.cat(chunks, dim=1)

    @torch.jit.unused
    def prior_distribution(self, image: Tensor) -> Distribution:
        """p(z | x) that ``sample`` draws from, of (B, C, *S): batch shape (B,), event shape (d,)."""
        with autocast_to_bf16(image.device.type, self.bf16):
            return self.prior.density.drawn_from(self.prior.features(image))

    @torch.jit.unused
    def compile_parts(self, **options: object) -> ProbabilisticUNet:
        """``torch.compile`` backbone, encoders and head in place, and nothing else (densities stay eager)."""
        for part in (self.backbone, self.prior.encoder, self.posterior.encoder, self.head):
            part.compile(**options)
        return self

    @torch.jit.unused
    def _train_on(self, image: Tensor, label: Tensor, rater_valid: Tensor | None) -> VariationalOutput:
        check_label(image, label)
        rater_valid = present_raters(label, rater_valid)
        index = torch.arange(label.shape[0], device=label.device)
        rater = draw_rater(rater_valid)  # (B,)
        if self.all_raters:
            shown, valid, slot = label, rater_valid, rater
        else:
            shown, valid, slot = label[index, rater].unsqueeze(1), rater_valid[index, rater].unsqueeze(1), rater * 0

        with autocast_to_bf16(image.device.type, self.bf16):
            prior = self.prior.density(self.prior.features(image).unsqueeze(1))  # batch (B, 1)
            pairs = torch.cat(
                [
                    image.unsqueeze(1).expand(-1, shown.shape[1], *image.shape[1:]),
                    encode_label(shown, self.head.out_channels, image.dtype),
                ],
                dim=2,
            )  # (B, P, C + K, *S)
            posterior_features = self.posterior.features(pairs.flatten(0, 1)).unflatten(0, shown.shape[:2])
            posterior = self.posterior.density(posterior_features)  # batch (B, P)
            draws = posterior.rsample()  # (B, P, d)
            logits = self.head(self.backbone(image), draws[index, slot]).float()
        return VariationalOutput(logits, rater, slot, prior, posterior, draws, valid)
