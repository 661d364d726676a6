"""Normal distributions with a full or a low-rank covariance; both sample in float32 whatever the autocast type."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, constraints
from torch.types import _size

__all__ = ["CholeskyNormal", "LowRankNormal"]


class CholeskyNormal(MultivariateNormal):
    r""":math:`N(loc, L L^T)`; ``torch``'s, but its draws are not rounded to bfloat16 under autocast.

    Args:
        loc: (..., d).
        scale_tril: L (..., d, d), lower triangular with a positive diagonal.
        validate_args: read the tensors back and check them; that waits for the device.
    """

    def __init__(self, loc: Tensor, scale_tril: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(loc, scale_tril=scale_tril, validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> CholeskyNormal:
        """The same law, of another batch shape."""
        shape = torch.Size(batch_shape) + self.event_shape
        return CholeskyNormal(self.loc.expand(shape), self.scale_tril.expand(shape + self.event_shape), False)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Differentiable draws (*sample_shape, ..., d)."""
        with torch.autocast(self.loc.device.type, enabled=False):
            return super().rsample(sample_shape)


class LowRankNormal(Distribution):
    r""":math:`N(loc, F F^T + \mathrm{diag}(D))`.

    Making one and sampling it need no factorisation, so both work at any scale: ``torch``'s
    ``LowRankMultivariateNormal`` factorises the capacitance :math:`I + F^T D^{-1} F` in its constructor, and fails
    where the covariance grows. Here the factor of the capacitance is taken when a density is asked for, as the
    triangle of the QR decomposition of :math:`[D^{-1/2} F; I]`: it always exists, and its diagonal is at least 1.

    Args:
        loc: (..., d).
        factor: F (..., d, r).
        diagonal: D (..., d), positive; variances, not standard deviations.
        validate_args: read the tensors back and check them; that waits for the device.

    >>> LowRankNormal(torch.zeros(2), torch.tensor([[1.0], [2.0]]), torch.ones(2)).covariance_matrix
    tensor([[2., 2.],
            [2., 5.]])
    """

    arg_constraints = {  # noqa: RUF012 - as torch has it
        "loc": constraints.real_vector,
        "factor": constraints.independent(constraints.real, 2),
        "diagonal": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, factor: Tensor, diagonal: Tensor, validate_args: bool | None = None) -> None:
        if (
            loc.dim() < 1
            or factor.dim() < 2
            or factor.shape[-2] != loc.shape[-1]
            or diagonal.shape[-1:] != loc.shape[-1:]
        ):
            raise ValueError(
                f"loc has shape {tuple(loc.shape)}, factor {tuple(factor.shape)} and diagonal {tuple(diagonal.shape)}, "
                f"expected (..., d), (..., d, r) and (..., d)."
            )
        event_shape = loc.shape[-1:]
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], factor.shape[:-2], diagonal.shape[:-1])
        self.loc = loc.expand(batch_shape + event_shape)
        self.factor = factor.expand(batch_shape + factor.shape[-2:])
        self.diagonal = diagonal.expand(batch_shape + event_shape)
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> LowRankNormal:
        """The same law, of another batch shape."""
        batch_shape = torch.Size(batch_shape)
        return LowRankNormal(
            self.loc.expand(batch_shape + self.event_shape),
            self.factor.expand(batch_shape + self.factor.shape[-2:]),
            self.diagonal.expand(batch_shape + self.event_shape),
            validate_args=False,
        )

    @property
    def mean(self) -> Tensor:
        """(..., d)."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """(..., d)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Diagonal of the covariance, (..., d)."""
        return self.factor.square().sum(-1) + self.diagonal

    @property
    def covariance_matrix(self) -> Tensor:
        """(..., d, d)."""
        with torch.autocast(self.loc.device.type, enabled=False):
            return self.factor @ self.factor.mT + torch.diag_embed(self.diagonal)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Differentiable draws (*sample_shape, ..., d)."""
        dtype, device = self.loc.dtype, self.loc.device
        noise = torch.randn(self._extended_shape(sample_shape), dtype=dtype, device=device)
        columns = (*self.batch_shape, self.factor.shape[-1], torch.Size(sample_shape).numel())
        shared = torch.randn(columns, dtype=dtype, device=device)
        shared = shared.movedim(-1, 0).unflatten(0, torch.Size(sample_shape)) if sample_shape else shared[..., 0]
        return self.loc + self.deviation(noise, shared)

    def deviation(self, noise: Tensor, shared: Tensor) -> Tensor:
        r"""Draw minus mean for given standard Normal noise, :math:`F v + D^{1/2} e`; its mirror is a draw as well.

        Args:
            noise: e (*S, ..., d).
            shared: v (*S, ..., r).

        Returns:
            (*S, ..., d)
        """
        axes = noise.dim() - 1 - len(self.batch_shape)
        columns = (shared.flatten(0, axes - 1) if axes else shared.unsqueeze(0)).movedim(0, -2)  # (..., S, r)
        # all draws of a factor in one product: a broadcast one would copy F for each draw
        with torch.autocast(self.loc.device.type, enabled=False):
            correlated = (columns @ self.factor.mT).movedim(-2, 0)  # (S, ..., d)
        correlated = correlated.unflatten(0, noise.shape[:axes]) if axes else correlated[0]
        return correlated + self.diagonal.sqrt() * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of (*S, ..., d) -> (*S, ...), in nats."""
        if self._validate_args:
            self._validate_sample(value)
        squared, log_determinant = self.squared_norm((value - self.loc).unsqueeze(-1))
        return -0.5 * (self.event_shape[0] * math.log(2 * math.pi) + log_determinant + squared.squeeze(-1))

    def entropy(self) -> Tensor:
        """(...), in nats."""
        return 0.5 * (self.event_shape[0] * (1 + math.log(2 * math.pi)) + self._factorise()[2])

    def squared_norm(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`x^T \Sigma^{-1} x` of each column, and :math:`\ln \det \Sigma`.

        :math:`x^T \Sigma^{-1} x = \min_v |D^{-1/2} (x - F v)|^2 + |v|^2`, the residual of a least-squares problem:
        never negative and free of the cancellation in Woodbury's difference.

        Args:
            columns: (*S, ..., d, m).

        Returns:
            squared norms (*S, ..., m) and log-determinant (...).
        """
        with torch.autocast(self.loc.device.type, enabled=False):
            upper, lower, log_determinant = self._factorise()  # (..., d, r), (..., r, r), (...)
            whitened = columns / self.diagonal.sqrt().unsqueeze(-1)
            fitted = torch.einsum("...dr,...dm->...rm", upper, whitened)
            residual = whitened - torch.einsum("...dr,...rm->...dm", upper, fitted)
            penalty = torch.einsum("...sr,...rm->...sm", lower, fitted)
            return residual.square().sum(-2) + penalty.square().sum(-2), log_determinant

    def shared_noise_given(self, value: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        r"""Law of the shared noise v of :math:`x = loc + F v + D^{1/2} e`, given some of the entries of x.

        :math:`v | x_o \sim N(C F_o^T D_o^{-1} (x_o - loc_o), C)`, :math:`C = (I + F_o^T D_o^{-1} F_o)^{-1}`: with the
        triangle T of the QR decomposition of :math:`[D_o^{-1/2} F_o; I]`, :math:`C = T^{-1} T^{-T}`.

        Args:
            value: x (..., d); what stands at the other entries is not looked at.
            observed: (..., d), True at the entries o. They need a positive diagonal.

        Returns:
            mean (..., r) and a root A (..., r, r) of the covariance :math:`C = A A^T`.
        """
        with torch.autocast(self.loc.device.type, enabled=False):
            scale = torch.where(observed, self.diagonal, 1.0).sqrt()  # no division by 0, whose gradient is NaN
            whitened = torch.where(observed.unsqueeze(-1), self.factor / scale.unsqueeze(-1), 0.0)  # (..., d, r)
            residual = torch.where(observed, (value - self.loc) / scale, 0.0)  # (..., d)
            upper, _, triangle = self._orthonormal(whitened)
            identity = torch.eye(triangle.shape[-1], dtype=triangle.dtype, device=triangle.device)
            root = torch.linalg.solve_triangular(triangle, identity.expand_as(triangle), upper=True)
            return (root @ (upper.mT @ residual.unsqueeze(-1))).squeeze(-1), root

    def _orthonormal(self, whitened: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # QR of [whitened (..., d, r); I]: upper d and lower r rows of the basis, triangle (..., r, r)
        identity = torch.eye(self.factor.shape[-1], dtype=self.loc.dtype, device=self.loc.device)
        stacked = torch.cat([whitened, identity.expand(whitened.shape[:-2] + identity.shape)], dim=-2)
        basis, triangle = torch.linalg.qr(stacked)
        return basis[..., : self.event_shape[0], :], basis[..., self.event_shape[0] :, :], triangle

    def _factorise(self) -> tuple[Tensor, Tensor, Tensor]:
        # an orthonormal basis of the columns of [D^-1/2 F; I]: upper d rows, lower r rows; ln det of the covariance
        with torch.autocast(self.loc.device.type, enabled=False):
            upper, lower, triangle = self._orthonormal(self.factor / self.diagonal.sqrt().unsqueeze(-1))
            log_determinant = self.diagonal.log().sum(-1) + 2 * triangle.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
            return upper, lower, log_determinant
