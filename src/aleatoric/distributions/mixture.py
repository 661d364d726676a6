"""A mixture whose draws have a gradient, the weights included."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily
from torch.nn import functional as F
from torch.types import _size

__all__ = ["ReparameterizedMixture"]


class ReparameterizedMixture(MixtureSameFamily):
    r""":math:`\sum_i \gamma_i \, p_i` with straight-through Gumbel-softmax draws.

    A draw is a draw of exactly one component, chosen with probability :math:`\gamma_i`. Its gradient with respect to
    the weights is that of :math:`\sum_i s_i z_i`, where s is the Gumbel-softmax at the temperature (Jang et al. 2017;
    Bhat et al., "Generalized Probabilistic U-Net", section 3.2). Density, mean and variance are exact.

    Args:
        mixture: weights, batch shape (...) with N categories.
        components: reparameterised distributions of one family, batch shape (..., N), event shape (d,).
        temperature: of the relaxation; small: less bias, more variance. It has no influence on the draws' law.
        validate_args: read the tensors back and check them; that waits for the device.

    >>> from torch.distributions import Categorical, Independent, Normal
    >>> components = Independent(Normal(torch.tensor([[-9.0], [9.0]]), torch.ones(2, 1)), 1)
    >>> ReparameterizedMixture(Categorical(torch.tensor([0.75, 0.25])), components).mean
    tensor([-4.5000])
    """

    has_rsample = True

    def __init__(
        self,
        mixture: Categorical,
        components: Distribution,
        temperature: float = 0.5,
        validate_args: bool | None = None,
    ) -> None:
        if not components.has_rsample or len(components.event_shape) != 1:
            raise ValueError(f"the components are {components}, expected reparameterised distributions over vectors.")
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}, expected a positive number.")
        self.temperature = temperature
        super().__init__(mixture, components, validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> ReparameterizedMixture:
        """The same law, of another batch shape."""
        batch_shape = torch.Size(batch_shape)
        components = self.component_distribution.batch_shape[-1:]
        return ReparameterizedMixture(
            self.mixture_distribution.expand(batch_shape),
            self.component_distribution.expand(batch_shape + components),
            self.temperature,
            validate_args=False,
        )

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Differentiable draws (*sample_shape, ..., d)."""
        draws = self.component_distribution.rsample(sample_shape)  # (*S, ..., N, d)
        logits = self.mixture_distribution.logits.expand(draws.shape[:-1])
        relaxed = F.gumbel_softmax(logits, self.temperature)  # (*S, ..., N)
        chosen = torch.zeros_like(relaxed).scatter(-1, relaxed.argmax(-1, keepdim=True), 1.0)
        # the second term is exactly zero forward; backward it alone carries the gradient of the weights
        gradient = (relaxed - relaxed.detach()).unsqueeze(-1) * draws.detach()
        return (chosen.unsqueeze(-1) * draws + gradient).sum(-2)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Draws without gradient; ``torch``'s own would wait for the device in ``multinomial``."""
        with torch.no_grad():
            return self.rsample(sample_shape)
