"""Small networks and outputs that several tests use."""

from __future__ import annotations

import torch
from torch.distributions import Independent, Normal

from aleatoric.networks.blocks import ConditionalDensity, DiagonalNormal, Encoder, FeatureCombiner, UNetBackbone
from aleatoric.networks.blocks.ladder import HierarchicalCore
from aleatoric.networks.blocks.phiseg_ladder import PHiSegLadder, PHiSegLikelihood
from aleatoric.networks.nets import HierarchicalProbabilisticUNet, PHiSeg, ProbabilisticUNet
from aleatoric.outputs import VariationalOutput


def probabilistic_unet(
    filters=(4, 8), latent_dim=3, num_convs=1, classes=1, channels=1, spatial_dims=2, norm=None, **options
) -> ProbabilisticUNet:
    def density(in_channels):
        encoder = Encoder(spatial_dims, in_channels, filters, num_convs, norm)
        return ConditionalDensity(encoder, DiagonalNormal(filters[-1], latent_dim))

    return ProbabilisticUNet(
        UNetBackbone(spatial_dims, channels, filters, num_convs, norm),
        density(channels),
        density(channels + classes),
        FeatureCombiner(spatial_dims, filters[0], latent_dim, classes),
        **options,
    )


def variational_output(batch=3, posteriors=4, latent_dim=2, seed=0, valid=None, classes=1, size=8) -> VariationalOutput:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    prior = Independent(Normal(normal(batch, 1, latent_dim), normal(batch, 1, latent_dim).exp()), 1)
    posterior = Independent(
        Normal(normal(batch, posteriors, latent_dim), normal(batch, posteriors, latent_dim).exp()), 1
    )
    valid = torch.ones(batch, posteriors, dtype=torch.bool) if valid is None else valid
    rater = valid.float().argmax(1)
    draws = normal(batch, posteriors, latent_dim)
    return VariationalOutput(normal(batch, classes, size, size), rater, rater, prior, posterior, draws, valid)


def hierarchical_unet(
    filters=(4, 8, 8), latent_dims=(1, 2), num_convs=1, num_blocks=1, classes=1, channels=1, spatial_dims=2, **options
) -> HierarchicalProbabilisticUNet:
    shape = (filters, latent_dims, num_convs, num_blocks, options.pop("norm", None))
    prior = HierarchicalCore(spatial_dims, channels, *shape)
    posterior = HierarchicalCore(spatial_dims, channels + classes, *shape, decode=False)
    return HierarchicalProbabilisticUNet(prior, posterior, classes, spatial_dims, **options)


def phiseg(
    filters=(4, 8, 8), latent_dims=(1, 2), num_convs=2, classes=1, channels=1, spatial_dims=2, norm="batch", **options
) -> PHiSeg:
    prior = PHiSegLadder(spatial_dims, channels, filters, latent_dims, num_convs, norm)
    posterior = PHiSegLadder(spatial_dims, channels + classes, filters, latent_dims, num_convs, norm)
    likelihood = PHiSegLikelihood(spatial_dims, filters, latent_dims, classes, num_convs, norm)
    return PHiSeg(prior, posterior, likelihood, **options)
