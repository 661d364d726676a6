"""Divergences between posterior and prior; each gives one value per image."""

from __future__ import annotations

import torch
from geomloss import SamplesLoss
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from ..distributions import FlowDistribution, base_of
from ..errors import InputError
from ..outputs import VariationalOutput

__all__ = ["KLDivergence", "SinkhornDivergence"]


class KLDivergence(nn.Module):
    r""":math:`KL[q(z | x, y_k) \| p(z | x)]` of the chosen rater k. Kohl et al. 2018, eq. 4.

    In closed form where ``torch.distributions`` has one for the pair (Normals of every family do), else by Monte Carlo:
    :math:`\log q(z) - \log p(z)`, unbiased. z is the draw that was decoded; where q is a flow, a new draw that comes
    with its density, log-determinants included, in one pass.

    Args:
        bases: between the densities that the flows transform, instead of between the flows (cSAE, eq. 12).
    """

    def __init__(self, bases: bool = False) -> None:
        super().__init__()
        self.bases = bases

    def forward(self, output: VariationalOutput, label: Tensor) -> Tensor:
        """Output with prior (B, 1) and posteriors (B, P) -> (B,) nats; 0 where no rater is valid."""
        if self.bases:
            values = _kl(base_of(output.posterior), base_of(output.prior), None)  # (B, P)
        else:
            values = _kl(output.posterior, output.prior, output.posterior_draws)
        index = torch.arange(values.shape[0], device=values.device)
        return values[index, output.slot] * output.posterior_valid[index, output.slot]


def _kl(posterior: Distribution, prior: Distribution, draws: Tensor | None) -> Tensor:
    # draws: of the posterior, if there are any to reuse
    try:
        return kl_divergence(posterior, prior)
    except NotImplementedError:
        if isinstance(posterior, FlowDistribution):
            z, log_prob, _ = posterior.rsample_with_log_prob()  # the density of a given point would need the inverse
            return log_prob - prior.log_prob(z)
        z = posterior.rsample() if draws is None else draws
        return posterior.log_prob(z) - prior.log_prob(z)


class SinkhornDivergence(nn.Module):
    r"""Debiased entropic transport :math:`S_\varepsilon[q(z | x) \| p(z | x)]` between posterior and prior draws.

    SPU-Net (eq. 16, Algorithm 1): of the aggregated posterior, one draw of every valid rater's posterior and as many
    prior draws of the same image. cSAE (eq. 12): ``num_samples`` draws of the chosen rater's posterior and as many of
    the prior; where both are flows, the draws are the projected ones. Uniform weights, all images in one batched call
    of geomloss.

    Args:
        p: ground cost :math:`|z - z'|^p / p`.
        blur: :math:`\varepsilon = blur^p`.
        scaling: ratio of successive blurs in the annealing.
        diameter: where the annealing starts. It is fixed because geomloss's estimate would make an image's loss depend
            on the other images of the batch, and would wait for the device at every step.
        num_samples: draws a side of the chosen rater's posterior; None: one draw of every valid rater's posterior.
    """

    def __init__(
        self,
        p: int = 2,
        blur: float = 0.05,
        scaling: float = 0.5,
        diameter: float = 100.0,
        num_samples: int | None = None,
    ) -> None:
        super().__init__()
        if num_samples is not None and num_samples < 1:
            raise InputError(
                f"num_samples is {num_samples}, expected a positive number of draws, or none for all raters."
            )
        self.num_samples = num_samples
        self.cost = SamplesLoss(
            "sinkhorn", p=p, blur=blur, scaling=scaling, diameter=diameter, debias=True, backend="tensorized"
        )

    def forward(self, output: VariationalOutput, label: Tensor) -> Tensor:
        """Output with posterior draws (B, P, d) -> (B,); 0 where no rater is valid."""
        valid, posterior_draws = output.posterior_valid, output.posterior_draws  # (B, P), (B, P, d)
        if self.num_samples is not None:
            index = torch.arange(valid.shape[0], device=valid.device)
            draws = output.posterior.rsample(torch.Size([self.num_samples]))  # (N, B, P, d)
            posterior_draws = draws[:, index, output.slot].transpose(0, 1)  # (B, N, d)
            valid = valid[index, output.slot].unsqueeze(1).expand(-1, self.num_samples)
        # (N, B, 1, d) -> (B, N, d): an image's cloud stays the image's. A reshape here would mix images and draws
        prior_draws = output.prior.rsample(torch.Size([valid.shape[1]])).squeeze(2).transpose(0, 1)
        weight = valid / valid.sum(1, keepdim=True).clamp(min=1)  # (B, N), uniform over the valid
        with torch.autocast(posterior_draws.device.type, enabled=False):
            values = self.cost(weight, posterior_draws.float().contiguous(), weight, prior_draws.float().contiguous())
        return values  # weights of zero make it 0 where nobody is valid
