"""GECO: the smallest KL divergence at which the reconstruction is good enough, instead of a weight to be chosen."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from ..errors import InputError
from ..outputs import LadderOutput, VariationalOutput
from .ladder import LadderKLDivergence
from .likelihoods import pixel_cross_entropy

__all__ = ["GECOLoss", "LagrangeMultiplier", "WorstPixelsLikelihood"]


class WorstPixelsLikelihood(nn.Module):
    """Cross-entropy of the chosen rater's label, averaged over the worst pixels of each image (Kohl et al. 2019).

    The k pixels are drawn without replacement with probabilities proportional to their cross-entropy: the k largest of
    log cross-entropy plus Gumbel noise. The authors' code draws them among all pixels of a batch; here each image has
    its own, so that its loss does not depend on the others.

    Args:
        share: of the pixels that are drawn, k = floor(share * pixels), at least 1.
        stochastic: else the k pixels of the largest cross-entropy.
    """

    def __init__(self, share: float = 0.02, stochastic: bool = True) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise InputError(f"share is {share}, expected a part of the pixels: give a number above 0, at most 1.")
        self.share = share
        self.stochastic = stochastic

    def count(self, num_pixels: int) -> int:
        """k of an image of ``num_pixels``."""
        return max(1, int(self.share * num_pixels + 1e-6))

    def forward(self, output: VariationalOutput | LadderOutput, label: Tensor) -> Tensor:
        """Output with logits (B, K, *S), label (B, R, *S) -> (B,) nats per pixel; 0 where no rater is valid."""
        values = pixel_cross_entropy(output, label).flatten(1)  # (B, pixels)
        score = values.detach()
        if self.stochastic:
            gumbel = -torch.empty_like(score).exponential_().clamp(min=1e-30).log()
            score = score.clamp(min=1e-30).log() + gumbel
        worst = score.topk(self.count(values.shape[1]), dim=1, sorted=False).indices
        index = torch.arange(label.shape[0], device=label.device)
        return values.gather(1, worst).mean(1) * output.posterior_valid[index, output.slot]


class LagrangeMultiplier(nn.Module):
    r"""A multiplier that grows while a constraint is violated and falls while it holds (Rezende and Viola 2018).

    :math:`\lambda = \mathrm{softplus}(\nu)^2`, as Kohl et al. (2019) have it, and :math:`\nu \leftarrow \nu + r \bar C`
    with :math:`\bar C` the moving average of the constraint, cut to [-1, 1]. So it falls as fast as it grew: with the
    exponential rule of Rezende and Viola it reaches its bound while the network is untrained, and then falls a hundred
    times slower, since a constraint that holds holds by little. Value and average are buffers, so that checkpoints keep
    them.

    Args:
        initial: first multiplier.
        rate: r, the largest step of :math:`\nu`; after n steps the multiplier is about :math:`(r n)^2` at most.
        decay: of the moving average, which begins with the first value.
        smallest, largest: bounds of the multiplier.
    """

    def __init__(
        self,
        initial: float = 1.0,
        rate: float = 1e-3,
        decay: float = 0.99,
        smallest: float = 1e-4,
        largest: float = 1e4,
    ) -> None:
        super().__init__()
        if not 0 < smallest <= initial <= largest:
            raise InputError(
                f"the multiplier begins with {initial} between {smallest} and {largest}, expected three positive "
                f"numbers with the first between the others: give such bounds."
            )
        self.rate = rate
        self.decay = decay
        self.bounds = (smallest, largest)
        self.value: Tensor
        self.average: Tensor
        self.begun: Tensor
        self.register_buffer("value", torch.tensor(float(initial)))
        self.register_buffer("average", torch.tensor(0.0))
        self.register_buffer("begun", torch.tensor(False))

    def forward(self, output: VariationalOutput | LadderOutput, label: Tensor) -> Tensor:
        """The multiplier for each image, (B,): the form of a loss term, so that it is logged like one."""
        return self.value.clone().expand(output.logits.shape[0])  # a copy: update changes the buffer before backward

    @torch.no_grad()
    def update(self, constraint: Tensor, valid: Tensor) -> None:
        """Move by the constraint's values (B,), over those images whose ``valid`` (B,) is True.

        Processes of a distributed training average theirs, so that all hold the same multiplier. Nothing waits for the
        device.
        """
        total = torch.stack([(constraint * valid).sum(), valid.sum().to(constraint)])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        mean, some = total[0] / total[1].clamp(min=1), total[1] > 0
        average = torch.where(self.begun, self.decay * self.average + (1 - self.decay) * mean, mean)
        root = self.value.sqrt()
        raw = root + torch.log(-torch.expm1(-root))  # of which the root is the softplus
        value = F.softplus(raw + self.rate * average.clamp(-1.0, 1.0)).square().clamp(*self.bounds)
        self.average.copy_(torch.where(some, average, self.average))
        self.value.copy_(torch.where(some, value, self.value))
        self.begun.logical_or_(some)


class GECOLoss(_Loss):
    r""":math:`KL + \lambda k (\bar\ell - \kappa)`: minimise the KL divergence subject to :math:`\bar\ell \le \kappa`.

    :math:`\bar\ell` is the mean cross-entropy of the k worst pixels, :math:`\lambda` a :class:`LagrangeMultiplier` of
    the relative constraint :math:`\bar\ell / \kappa - 1`, which depends on no unit. Rezende and Viola, "Taming VAEs"
    (2018); Kohl et al. 2019 take :math:`\kappa = 0.05` and the worst 2 %. Their code moves :math:`\nu` with Adam, whose
    steps are of one length too.

    An image's value does not depend on the batch it is in. The multiplier moves by calling the loss in training only:
    not under ``torch.no_grad``, not in ``eval`` mode. As it moves, losses of different epochs cannot be compared:
    choose the best model by the ELBO (:class:`VariationalLoss`). It is a buffer: move the loss to the device, and keep
    it in checkpoints.

    Args:
        reconstruction: has ``count``; (output, label) -> (B,) nats per pixel.
        divergence: (output, label) -> (B,) nats.
        multiplier: the multiplier.
        kappa: the reconstruction that is good enough, nats per pixel.
    """

    def __init__(
        self,
        reconstruction: WorstPixelsLikelihood | None = None,
        divergence: nn.Module | None = None,
        multiplier: LagrangeMultiplier | None = None,
        kappa: float = 0.05,
    ) -> None:
        super().__init__()
        if not kappa > 0:
            raise InputError(f"kappa is {kappa}, expected a reconstruction to aim at: give a number above 0.")
        self.reconstruction = WorstPixelsLikelihood() if reconstruction is None else reconstruction
        self.divergence = LadderKLDivergence() if divergence is None else divergence
        self.multiplier = LagrangeMultiplier() if multiplier is None else multiplier
        self.kappa = kappa

    def forward(self, output: VariationalOutput | LadderOutput, label: Tensor) -> Tensor:
        """Training output and label (B, R, *S) -> scalar; moves the multiplier for the next step."""
        values = {name: module(output, label) for name, module in self.named_terms().items()}
        index = torch.arange(label.shape[0], device=label.device)
        valid = output.posterior_valid[index, output.slot]
        constraint = (values["reconstruction"] - self.kappa) * valid  # (B,)
        pixels = self.reconstruction.count(output.logits[0, 0].numel())
        if self.training and torch.is_grad_enabled():
            self.multiplier.update(constraint.detach() / self.kappa, valid)
        return (values["kl"] + values["multiplier"] * pixels * constraint).mean()

    def terms(self, output: VariationalOutput | LadderOutput, label: Tensor) -> dict[str, Tensor]:
        """Each term by its name, averaged over the batch; moves nothing."""
        return {name: module(output, label).mean() for name, module in self.named_terms().items()}

    def named_terms(self) -> dict[str, nn.Module]:
        """The modules whose outputs the terms are, by name: a handler listens to them through forward hooks."""
        return {"reconstruction": self.reconstruction, "kl": self.divergence, "multiplier": self.multiplier}
