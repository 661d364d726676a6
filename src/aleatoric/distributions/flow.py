"""Planar normalizing flows whose parameters are given, not held (Rezende & Mohamed 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform, TransformedDistribution, constraints
from torch.nn import functional as F
from torch.types import _size

__all__ = ["FlowDistribution", "FlowDraw", "PlanarTransform", "planar_parameters", "planar_step"]


def planar_parameters(u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\hat u` that makes the step invertible, and :math:`w^T \hat u > -1` (Rezende & Mohamed 2015, A.1).

    Args:
        u: (..., d).
        w: (..., d).

    Returns:
        (..., d) and (..., 1). :math:`w^T \hat u` is at least -0.9999, so that the log-determinant stays finite.
    """
    inner = (w * u).sum(-1, keepdim=True)
    # m(x) - x with m(x) = softplus(x) - 1, without the difference of two large numbers
    correction = torch.maximum(F.softplus(-inner), 1e-4 - inner) - 1.0
    squared = w.square().sum(-1, keepdim=True)
    share = correction / squared.clamp(min=1e-12)
    return u + share * w, (inner + share * squared).clamp(min=1e-4 - 1.0)


def planar_step(z: Tensor, u_hat: Tensor, w: Tensor, b: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`z + \hat u \tanh(w^T z + b)` and its :math:`\ln|\det J| = \ln(1 + w^T \hat u \, \tanh'(w^T z + b))`.

    Args:
        z: (..., d).
        u_hat: (..., d).
        w: (..., d).
        b: (..., 1).
        gain: :math:`w^T \hat u`, (..., 1).

    Returns:
        (..., d) and (...).
    """
    bent = torch.tanh((w * z).sum(-1, keepdim=True) + b)  # (..., 1)
    return z + u_hat * bent, torch.log1p(gain * (1.0 - bent.square())).squeeze(-1)


class PlanarTransform(Transform):
    r""":math:`f(z) = z + \hat u \tanh(w^T z + b)`, with :math:`\hat u` made of u so that f is a bijection.

    It keeps no cache. The inverse has no formula, but :math:`w^T f(z)` is an increasing function of :math:`w^T z`
    alone: a root of that, found by bisection, is enough; its gradient is that of the implicit function.

    Args:
        u: (..., d).
        w: (..., d).
        b: (...).

    >>> step = PlanarTransform(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]), torch.tensor(0.0))
    >>> z = torch.tensor([0.5, -1.0])
    >>> torch.allclose(step.inv(step(z)), z)
    True
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        super().__init__(cache_size=0)
        self.w = w
        self.b = b.unsqueeze(-1)
        self.u_hat, self.gain = planar_parameters(u, w)

    def with_cache(self, cache_size: int = 1) -> PlanarTransform:
        """Itself: the point of this transform is that nobody relies on a cache."""
        return self

    def forward_with_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""z (..., d) -> f(z) (..., d) and :math:`\ln|\det J|` (...), in one pass."""
        return planar_step(z, self.u_hat, self.w, self.b, self.gain)

    def _call(self, x: Tensor) -> Tensor:
        return self.forward_with_log_det(x)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        r""":math:`\ln|\det J|` at x (..., d) -> (...); y is not looked at."""
        return self.forward_with_log_det(x)[1]

    def _inverse(self, y: Tensor) -> Tensor:
        target = (self.w * y).sum(-1, keepdim=True) + self.b  # (..., 1); the root s of s + gain tanh(s) = target
        with torch.no_grad():
            low, high = target - self.gain.abs(), target + self.gain.abs()
            for _ in range(32):  # a fixed number: asking for convergence would wait for the device
                middle = 0.5 * (low + high)
                below = middle + self.gain * torch.tanh(middle) < target
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            root = 0.5 * (low + high)
        # one step of Newton's, which polishes the value and carries the gradient of the implicit function
        bent = torch.tanh(root)
        slope = (1.0 + self.gain * (1.0 - bent.square())).detach()
        return y - self.u_hat * torch.tanh(root - (root + self.gain * bent - target) / slope)


class FlowDraw(NamedTuple):
    """A draw of a flow with what was known on the way."""

    z: Tensor  # (*S, ..., d)  the draw
    log_prob: Tensor  # (*S, ...)  its log-density under the flow, in nats
    base_draw: Tensor  # (*S, ..., d)  the draw of the base that was transformed


class FlowDistribution(TransformedDistribution):
    r"""Planar steps over a base density: :math:`\ln q(z_K) = \ln q_0(z_0) - \sum_k \ln|\det J_k|`.

    Mean and variance have no closed form; ``base_dist`` has them.

    Args:
        base: reparameterised, batch shape (...), event shape (d,).
        steps: applied in this order, with parameters of the base's batch shape or one that broadcasts to it.
        validate_args: read the tensors back and check them; that waits for the device.
    """

    def __init__(self, base: Distribution, steps: Sequence[PlanarTransform], validate_args: bool | None = None) -> None:
        self.steps = tuple(steps)
        super().__init__(base, list(self.steps), validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> FlowDistribution:
        """The same law, of another batch shape."""
        return FlowDistribution(self.base_dist.expand(torch.Size(batch_shape)), self.steps, validate_args=False)

    def rsample_with_log_prob(self, sample_shape: _size = torch.Size()) -> FlowDraw:  # noqa: B008
        """Differentiable draws and their log-density from one pass: no inverse, no cache."""
        base_draw = self.base_dist.rsample(sample_shape)
        z, log_prob = base_draw, self.base_dist.log_prob(base_draw)
        for step in self.steps:
            z, log_determinant = step.forward_with_log_det(z)
            log_prob = log_prob - log_determinant
        return FlowDraw(z, log_prob, base_draw)
