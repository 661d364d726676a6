"""From (features, z) to logits: the 1x1 combiner of the Probabilistic U-Net, with the shared-feature identity."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from .encoders import initialize_kohl

__all__ = ["FeatureCombiner"]


class FeatureCombiner(nn.Module):
    r"""1x1 convolutions over concat(features, z), with ReLU between them (Kohl et al. 2018, "fcomb").

    The first one splits, because z is the same at every pixel:
    :math:`W [f; z] + b = (W_f f + b) + W_z z`. The first part is computed once per image, the second is one vector per
    sample. Same numbers as tiling z and concatenating (:meth:`plain` does that, for tests and benchmarks).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the features.
        latent_dim: d.
        out_channels: K class channels.
        num_layers: 1x1 layers in all, the last one included; at least 2, since a combiner without a nonlinearity
            makes every sample nested inside the next.
        hidden_channels: width of the hidden layers; default ``in_channels``.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 32,
        latent_dim: int = 6,
        out_channels: int = 1,
        num_layers: int = 4,
        hidden_channels: int | None = None,
    ) -> None:
        super().__init__()
        if num_layers < 2:
            raise ValueError(f"num_layers is {num_layers}, but a combiner needs a hidden layer: give 2 or more.")
        conv = Conv[Conv.CONV, spatial_dims]
        hidden = in_channels if hidden_channels is None else hidden_channels
        self.in_channels = in_channels
        self.latent_dim = latent_dim
        self.out_channels = out_channels
        self.first = conv(in_channels + latent_dim, hidden, kernel_size=1)
        layers: list[nn.Module] = []
        for _ in range(num_layers - 2):
            layers += [conv(hidden, hidden, kernel_size=1), nn.ReLU(inplace=True)]
        self.rest = nn.Sequential(*layers, conv(hidden, out_channels, kernel_size=1))
        self.apply(initialize_kohl)

    def shared(self, features: Tensor) -> Tensor:
        """The part of the first layer that all samples of an image share: (B, F, *S) -> (B, H, *S)."""
        weight = self.first.weight[:, : self.in_channels]
        if features.dim() == 4:
            return torch.conv2d(features, weight, self.first.bias)
        return torch.conv3d(features, weight, self.first.bias)

    def bias_of(self, z: Tensor) -> Tensor:
        """The part that is z's: (M, d) -> (M, H)."""
        return nn.functional.linear(z, self.first.weight[:, self.in_channels :].flatten(1))

    def finish(self, shared: Tensor, bias: Tensor) -> Tensor:
        """Shared part (M, H, *S) and z's part (M, H) -> logits (M, K, *S)."""
        bias = bias.to(shared.dtype).reshape(list(bias.shape) + [1] * (shared.dim() - 2))
        return self.rest(torch.relu_(shared + bias))

    def forward(self, features: Tensor, z: Tensor) -> Tensor:
        """Features (B, F, *S), one z per image (B, d) -> logits (B, K, *S)."""
        return self.finish(self.shared(features), self.bias_of(z))

    @torch.jit.unused
    def plain(self, features: Tensor, z: Tensor) -> Tensor:
        """The same logits by tiling z and concatenating, as the paper writes it."""
        tiled = z.to(features.dtype).reshape(*z.shape, *[1] * (features.dim() - 2)).expand(-1, -1, *features.shape[2:])
        return self.rest(torch.relu(self.first(torch.cat([features, tiled], dim=1))))
