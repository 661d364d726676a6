"""A Normal distribution over a whole logit map, and what can be done with it after inference."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from ..errors import InputError
from .normals import LowRankNormal

__all__ = ["LogitMapNormal"]


class LogitMapNormal(Distribution):
    r""":math:`N(\mu, P P^T + \mathrm{diag}(D))` over all logits of an image at once (Monteiro et al. 2020, eq. 5).

    It is the :class:`LowRankNormal` of the flattened map: drawing factorises nothing, densities and conditioning take
    the QR decomposition of an (..., R) matrix, and no pixel x pixel matrix is made. R = 0 is the diagonal model.

    A pixel whose diagonal and factor are zero (background, or one that was given) is a constant: its draws are its
    mean, and density and entropy leave it out. A zero diagonal alone is a law to draw from that has no density.

    What follows inference (Monteiro et al. 2020, section 5.3 and Fig. 6) needs no network: :meth:`with_temperature`,
    :meth:`with_class_scale`, :meth:`given`, :meth:`resample`.

    Args:
        loc: mean (B, K, *S).
        factor: P (B, R, K, *S).
        diagonal: D (B, K, *S), variances, at least 0.
        event_dims: axes of the map, K and S together; default all but the first of ``loc``.
        validate_args: read the tensors back and check them; that waits for the device.

    Example:
        >>> pair = LogitMapNormal(torch.zeros(1, 1, 2), torch.ones(1, 1, 1, 2), torch.full((1, 1, 2), 1e-6))
        >>> left, right = pair.sample((5,))[:, 0, 0].unbind(-1)  # both pixels go together
        >>> torch.allclose(left, right, atol=0.02)
        True
    """

    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        factor: Tensor,
        diagonal: Tensor,
        event_dims: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        dims = loc.dim() - 1 if event_dims is None else event_dims
        event_shape = loc.shape[loc.dim() - dims :]
        if (
            not 1 <= dims <= loc.dim()
            or factor.dim() <= dims
            or factor.shape[factor.dim() - dims :] != event_shape
            or diagonal.shape[diagonal.dim() - dims :] != event_shape
        ):
            raise ValueError(
                f"loc has shape {tuple(loc.shape)}, factor {tuple(factor.shape)} and diagonal {tuple(diagonal.shape)}, "
                f"expected (B, K, *S), (B, R, K, *S) and (B, K, *S)."
            )
        rank = factor.shape[-dims - 1 : factor.dim() - dims]
        batch_shape = torch.broadcast_shapes(loc.shape[:-dims], factor.shape[: -dims - 1], diagonal.shape[:-dims])
        self.loc = loc.expand(batch_shape + event_shape)
        self.factor = factor.expand(batch_shape + rank + event_shape)
        self.diagonal = diagonal.expand(batch_shape + event_shape)
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:  # type: ignore[override]
        """As torch has it; the diagonal may be zero."""
        dims = len(self.event_shape)
        return {
            "loc": constraints.independent(constraints.real, dims),
            "factor": constraints.independent(constraints.real, dims + 1),
            "diagonal": constraints.independent(constraints.nonnegative, dims),
        }

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """All maps."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def rank(self) -> int:
        """R."""
        return self.factor.shape[-len(self.event_shape) - 1]

    @property
    def mean(self) -> Tensor:
        """(B, K, *S), the most likely map too."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """(B, K, *S)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Of each logit, (B, K, *S)."""
        return self.factor.square().sum(-len(self.event_shape) - 1) + self.diagonal

    @property
    def covariance_matrix(self) -> Tensor:
        """Of the flattened maps, (B, K * pixels, K * pixels): for small ones."""
        return self.flat().covariance_matrix

    def flat(self) -> LowRankNormal:
        """The law of the flattened maps, (B, K * pixels), over the same memory."""
        return self._flat(self.diagonal)

    def _flat(self, diagonal: Tensor) -> LowRankNormal:
        start = -len(self.event_shape)
        return LowRankNormal(
            self.loc.flatten(start), self.factor.flatten(start).mT, diagonal.flatten(start), validate_args=False
        )

    def _like(self, loc: Tensor, factor: Tensor, diagonal: Tensor) -> LogitMapNormal:
        return LogitMapNormal(loc, factor, diagonal, len(self.event_shape), validate_args=False)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> LogitMapNormal:
        """The same law, of another batch shape."""
        shape = torch.Size(batch_shape)
        factor = self.factor.expand((*shape, self.rank, *self.event_shape))
        return self._like(self.loc.expand(shape + self.event_shape), factor, self.diagonal)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Differentiable draws (*sample_shape, B, K, *S)."""
        return self.flat().rsample(sample_shape).unflatten(-1, self.event_shape)

    def deviation(self, noise: Tensor, shared: Tensor) -> Tensor:
        """Draws minus mean for standard Normal noise (*N, B, K, *S) and shared noise (*N, B, R): (*N, B, K, *S)."""
        flat = noise.flatten(-len(self.event_shape))
        return self.flat().deviation(flat, shared).unflatten(-1, self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of maps (*N, B, K, *S) -> (*N, B), in nats; constants are left out."""
        if self._validate_args:
            self._validate_sample(value)
        law, constants = self._without_constants()
        start = -len(self.event_shape)
        value = torch.where(self.diagonal > 0, value, self.loc).flatten(start)
        return law.log_prob(value) + 0.5 * math.log(2 * math.pi) * constants

    def entropy(self) -> Tensor:
        """(B,), in nats; constants are left out."""
        law, constants = self._without_constants()
        return law.entropy() - 0.5 * (1 + math.log(2 * math.pi)) * constants

    def _without_constants(self) -> tuple[LowRankNormal, Tensor]:
        # constants get a variance of 1, which factorises; their number (B,) tells what to take back
        constant = (self.diagonal == 0) & (self.factor == 0).all(-len(self.event_shape) - 1)
        return self._flat(self.diagonal.masked_fill(constant, 1.0)), constant.flatten(-len(self.event_shape)).sum(-1)

    def with_temperature(self, temperature: float) -> LogitMapNormal:
        """The spread times ``temperature``, the covariance times its square: diversity against quality."""
        return self._like(self.loc, self.factor * temperature, self.diagonal * temperature**2)

    def with_class_scale(self, index: int, scale: float) -> LogitMapNormal:
        """The spread of one class times ``scale``, its covariances with the others too (Monteiro et al. 2020, Fig. 6).

        Args:
            index: of the class, 0 ... K - 1.
            scale: a negative one turns the class against the others.

        Raises:
            InputError: there is no such class.
        """
        weight = self._class_weight(index, scale)
        return self._like(self.loc, self.factor * weight, self.diagonal * weight.square())

    def scale_class(self, sample: Tensor, index: int, scale: float) -> Tensor:
        """The same manipulation of given maps: mean + scale * (sample - mean) in that class, the others as they were.

        Args:
            sample: (*N, B, K, *S).
            index: of the class, 0 ... K - 1.
            scale: 1 changes nothing, 0 gives the mean; the paper goes from -3 to 3.

        Returns:
            (*N, B, K, *S)

        Raises:
            InputError: there is no such class.
        """
        return sample + (self._class_weight(index, scale) - 1.0) * (sample - self.loc)

    def _class_weight(self, index: int, scale: float) -> Tensor:
        # (K, 1, ...): scale at that class, 1 elsewhere
        classes = self.event_shape[0]
        if not 0 <= index < classes:
            raise InputError(f"found class {index}, expected one of the {classes} logits: give 0 to {classes - 1}.")
        weight = torch.ones(classes, *[1] * (len(self.event_shape) - 1), dtype=self.loc.dtype, device=self.loc.device)
        weight[index] = scale
        return weight

    def given(self, sample: Tensor, region: Tensor) -> LogitMapNormal:
        r"""The law inside a region given a map outside of it: again a Normal of the same rank, in closed form.

        The shared noise v of :math:`\eta = \mu + P v + D^{1/2} e` is all that region and rest have in common. Its law
        given the rest is that of R numbers; inside, :math:`\eta = \mu + P m + P A v' + D^{1/2} e`, with mean m and root
        A of that law. Outside, the map is constant.

        Args:
            sample: the map that is kept outside, (B, K, *S).
            region: bool (*S), (K, *S) or (B, K, *S), True where the law is wanted.

        Raises:
            InputError: sample or region do not fit the map.
        """
        inside = self._inside(region)
        if sample.shape != self.loc.shape:
            raise InputError(
                f"found a sample of shape {tuple(sample.shape)}, expected {tuple(self.loc.shape)}: give one map "
                f"for each image."
            )
        start = -len(self.event_shape)
        observed = ~inside & (self.diagonal > 0)  # a constant tells nothing about the rest
        mean, root = self.flat().shared_noise_given(sample.flatten(start), observed.flatten(start))
        flat = self.factor.flatten(start)  # (B, R, d)
        with torch.autocast(self.loc.device.type, enabled=False):
            shift = (mean.unsqueeze(-2) @ flat).squeeze(-2).unflatten(-1, self.event_shape)
            factor = (root.mT @ flat).unflatten(-1, self.event_shape)
        return self._like(
            torch.where(inside, self.loc + shift, sample),
            torch.where(inside.unsqueeze(start - 1), factor, 0.0),
            torch.where(inside, self.diagonal, 0.0),
        )

    def resample(self, sample: Tensor, region: Tensor, num_samples: int) -> Tensor:
        """New draws inside a region that fit the rest of a map, which stays as it is, bit for bit.

        Args:
            sample: the chosen map, (B, K, *S).
            region: bool (*S), (K, *S) or (B, K, *S), True where to draw anew.
            num_samples: N.

        Returns:
            (N, B, K, *S)

        Raises:
            InputError: sample or region do not fit the map.
        """
        draws = self.given(sample, region).rsample((num_samples,))
        return torch.where(self._inside(region), draws, sample)

    def _inside(self, region: Tensor) -> Tensor:
        # -> (B, K, *S)
        shapes = [self.event_shape[1:], self.event_shape, self.loc.shape]
        if region.dtype != torch.bool or region.shape not in shapes:
            raise InputError(
                f"found a region of {region.dtype} and shape {tuple(region.shape)}, expected bool of shape "
                f"{tuple(shapes[0])}, {tuple(shapes[1])} or {tuple(shapes[2])}: compare a mask with 0, for instance."
            )
        return region.expand(self.loc.shape)
