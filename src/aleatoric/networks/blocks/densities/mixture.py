"""A head of a mixture of Normals."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from ....distributions import ReparameterizedMixture
from ....errors import InputError
from .base import LinearDensity

__all__ = ["MixtureDensity"]


class MixtureDensity(LinearDensity):
    """Mixture of N Normals of one family, weights and components from one linear layer (Generalized PU-Net, 3.2).

    ``draw`` multiplies the spread of each component by its temperature and leaves means and weights: at 0 a draw is
    the mean of a component, chosen with its weight.

    Args:
        component: the family, as a head for the same features; its own layer is not used and not kept.
        num_components: N.
        temperature: of the Gumbel-softmax relaxation in training; the paper has 0.36 with 5 axis-aligned components
            and 0.28 with 9 full ones.

    Raises:
        InputError: the component is no head of one Normal, or N is not positive.
    """

    def __init__(self, component: LinearDensity, num_components: int = 5, temperature: float = 0.36) -> None:
        if not isinstance(component, LinearDensity) or isinstance(component, MixtureDensity):
            raise InputError(
                f"the component is a {type(component).__name__}, expected the head of one Normal: give a "
                f"DiagonalNormal, a FullNormal or a LowRankNormalDensity (a flow goes over the mixture, not into it)."
            )
        if num_components < 1:
            raise InputError(f"num_components is {num_components}, expected a positive number: give 1 or more.")
        width = component.linear.out_features
        super().__init__(component.linear.in_features, component.latent_dim, num_components * (width + 1))
        self.component = deepcopy(component)
        self.component.linear = nn.Identity()  # type: ignore[assignment]
        self.num_components = num_components
        self.width = width
        self.temperature = temperature

    def _rows_logits(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        # -> a row of parameters for each component (..., N, K), logits of the weights (..., N)
        table = parameters.unflatten(-1, [self.num_components, self.width + 1])
        return table[..., : self.width], table[..., self.width]

    @torch.jit.unused
    def _from_parameters(self, parameters: Tensor) -> Distribution:
        rows, logits = self._rows_logits(parameters)
        weights = Categorical(logits=logits, validate_args=False)
        components = self.component._from_parameters(rows)
        return ReparameterizedMixture(weights, components, self.temperature, validate_args=False)

    def _draw_from_parameters(self, parameters: Tensor, temperature: float) -> Tensor:
        rows, logits = self._rows_logits(parameters)
        # the largest of logits + Gumbel noise is a draw of the weights; torch.multinomial would wait for the device
        chosen = (logits - torch.empty_like(logits).exponential_().log()).argmax(-1, keepdim=True)  # (..., 1)
        row = torch.gather(rows, -2, chosen.unsqueeze(-1).expand_as(rows[..., :1, :])).squeeze(-2)
        return self.component._draw_from_parameters(row, temperature)
