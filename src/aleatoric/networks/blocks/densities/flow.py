"""A head that puts planar flow steps over another head's density."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ....distributions import FlowDistribution, PlanarTransform
from ....distributions.flow import planar_parameters, planar_step
from ....errors import InputError
from ..encoders import initialize_kohl
from .base import DensityHead

__all__ = ["PlanarFlow"]


class PlanarFlow(DensityHead):
    """Planar flow over a base density, with (u, w, b) of every step linear in the features.

    PU-Net+NF (Selvan et al. 2020; Valiuddin et al. 2021) has two steps on the posterior, cSAE on both densities.
    ``draw`` multiplies the spread of the base by its temperature; the steps stay what they are.

    Args:
        base: head of the density below, for the same features.
        in_features: F, the channels that the encoder gives.
        steps: how many.
        drop_at_inference: draws, and so every exported model, come from the base alone, as in cSAE. The steps lie in
            one submodule that the scriptable path never reaches and that TorchScript is told to leave out: a scripted
            model holds none of its parameters. ``forward`` gives the flow either way: the objective needs it.

    Raises:
        InputError: ``steps`` is not positive.
    """

    __constants__ = ["drop_at_inference"]  # noqa: RUF012 - TorchScript's way to know that it never changes

    def __init__(self, base: DensityHead, in_features: int, steps: int = 2, drop_at_inference: bool = False) -> None:
        super().__init__(base.latent_dim)
        if steps < 1:
            raise InputError(f"steps is {steps}, expected a positive number: give 1 or more.")
        self.base = base
        self.steps = steps
        self.flow = nn.Linear(in_features, steps * (2 * base.latent_dim + 1))
        self.drop_at_inference = drop_at_inference
        initialize_kohl(self.flow)
        if drop_at_inference:
            self.__jit_ignored_attributes__ = ["flow"]

    @torch.jit.unused
    def drawn_from(self, features: Tensor) -> Distribution:
        """The base's law where the steps are dropped at inference, else the flow's."""
        return self.base(features) if self.drop_at_inference else self(features)

    def _step_parameters(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # -> u, w (..., steps, d), b (..., steps, 1)
        table = self.flow(features).unflatten(-1, [self.steps, 2 * self.latent_dim + 1])
        return table[..., : self.latent_dim], table[..., self.latent_dim : -1], table[..., -1:]

    @torch.jit.unused
    def _distribution(self, features: Tensor) -> Distribution:
        u, w, b = self._step_parameters(features)
        steps = [PlanarTransform(u[..., k, :], w[..., k, :], b[..., k, 0]) for k in range(self.steps)]
        return FlowDistribution(self.base._distribution(features), steps, validate_args=False)

    def _draw(self, features: Tensor, temperature: float) -> Tensor:
        z = self.base._draw(features, temperature)
        if self.drop_at_inference:
            return z
        else:  # TorchScript leaves out this branch, and what it needs, only if it is one
            u, w, b = self._step_parameters(features)
            u_hat, gain = planar_parameters(u, w)
            for k in range(self.steps):
                z, _ = planar_step(z, u_hat[..., k, :], w[..., k, :], b[..., k, :], gain[..., k, :])
            return z
