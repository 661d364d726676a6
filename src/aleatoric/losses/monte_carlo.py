"""The Monte-Carlo likelihood of a distribution over logit maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss
from torch.utils.checkpoint import checkpoint

from ..distributions import LogitMapNormal
from ..errors import InputError
from ..outputs import LogitMapOutput
from .rater_pixels import crop_to, log_probabilities, mean_over_raters, one_hot_pixels

__all__ = ["MonteCarloLikelihood", "MonteCarloLikelihoodLoss"]

_SMALL = 2**20  # numbers of noise that are drawn in one call, whatever the chunks


class MonteCarloLikelihood(nn.Module):
    r""":math:`-\log \frac{1}{M} \sum_m \prod_i p(y_i | \eta_i^{(m)})`, :math:`\eta^{(m)} \sim p(\eta | x)`.

    Monteiro et al. 2020, eq. 7, averaged over the valid raters of an image, all of which see the same M maps. Bernoulli
    for K = 1 (a logit), categorical for K > 1.

    Args:
        num_samples: M.
        chunk_size: maps that are held at a time, in the backward pass too, which computes them anew; default all.
            Neither value nor gradient depends on it, and the noise of a seed does not either.
        antithetic: half of the maps are the mirrors of the others about the mean; M must be even.

    Raises:
        InputError: a number of samples or a chunk that cannot be drawn; a label that does not fit the logits.
    """

    def __init__(self, num_samples: int = 20, chunk_size: int | None = None, antithetic: bool = False) -> None:
        super().__init__()
        if num_samples < 1 or (antithetic and num_samples % 2):
            raise InputError(
                f"num_samples is {num_samples}, expected {'an even number' if antithetic else 'at least 1'}: give more."
            )
        if chunk_size is not None and chunk_size < 1 + antithetic:
            raise InputError(
                f"chunk_size is {chunk_size}, expected at least {1 + antithetic}, or nothing for all maps at once."
            )
        self.num_samples = num_samples
        self.chunk_size = chunk_size
        self.antithetic = antithetic

    def forward(self, output: LogitMapOutput, label: Tensor) -> Tensor:
        """Output and label (B, R, *S) -> (B,) nats per image; 0 where no rater is valid.

        A label that is larger than the logits is cropped centrally; a value that is no class counts for nothing.
        """
        law = output.distribution
        values = self.log_likelihoods(law, label)  # (M, B, R)
        nats = math.log(self.num_samples) - values.logsumexp(0)  # (B, R)
        return mean_over_raters(nats, output.rater_valid)

    def log_likelihoods(self, law: LogitMapNormal, label: Tensor) -> Tensor:
        r""":math:`\sum_i \log p(y_i | \eta_i^{(m)})` of M drawn maps: label (B, R, *S) -> (M, B, R), nats."""
        one_hot = one_hot_pixels(crop_to(label, law.event_shape[1:]), law.event_shape[0])  # (B, C * pixels, R)
        steps = self.num_samples // 2 if self.antithetic else self.num_samples
        at_a_time = steps if self.chunk_size is None else self.chunk_size // (1 + self.antithetic)
        parameters = law.loc, law.factor, law.diagonal, one_hot
        parts: list[Tensor] = []
        shared = torch.randn(steps, law.loc.shape[0], law.rank, dtype=law.loc.dtype, device=label.device)
        small = steps * law.loc.numel() <= _SMALL
        noise = torch.randn(steps, *law.loc.shape, dtype=law.loc.dtype, device=label.device) if small else None
        for start in range(0, steps, at_a_time):
            here = slice(start, start + at_a_time)
            arguments = *parameters, shared[here], None if noise is None else noise[here]
            if at_a_time >= steps or not torch.is_grad_enabled():
                parts.append(self._part(*arguments))
            else:  # the same noise again in the backward pass
                parts.append(checkpoint(self._part, *arguments, use_reentrant=False))
        return torch.cat(parts)

    def _part(
        self, loc: Tensor, factor: Tensor, diagonal: Tensor, one_hot: Tensor, shared: Tensor, noise: Tensor | None
    ) -> Tensor:
        # shared noise of n maps (n, B, R) and each map's own -> (n, B, R), or twice as many where they are mirrored
        if noise is None:
            noise = loc.new_empty((len(shared), *loc.shape))
            for one in noise:  # map by map, so that a seed's noise does not depend on the chunks
                one.normal_()
        deviation = LogitMapNormal(loc, factor, diagonal, validate_args=False).deviation(noise, shared)
        maps = torch.cat([loc + deviation, loc - deviation]) if self.antithetic else loc + deviation
        with torch.autocast(loc.device.type, enabled=False):
            # all terms of a sum have one sign: nothing cancels, however large the logits are
            return torch.matmul(log_probabilities(maps).movedim(0, 1), one_hot.to(maps)).movedim(1, 0)


class MonteCarloLikelihoodLoss(_Loss):
    """:class:`MonteCarloLikelihood`, averaged over the images of the batch.

    Args:
        num_samples: M; 20 as published.
        chunk_size: maps that are held at a time; default all.
        antithetic: half of the maps are the mirrors of the others about the mean.

    Raises:
        InputError: as :class:`MonteCarloLikelihood`.

    Example:
        >>> law = LogitMapNormal(torch.zeros(1, 1, 4, 4), torch.zeros(1, 0, 1, 4, 4), torch.zeros(1, 1, 4, 4))
        >>> output = LogitMapOutput(law, torch.ones(1, 2, dtype=torch.bool))
        >>> loss = MonteCarloLikelihoodLoss()(output, torch.zeros(1, 2, 4, 4))  # logits of 0: 16 ln 2
        >>> f"{loss:.3f}"
        '11.090'
    """

    def __init__(self, num_samples: int = 20, chunk_size: int | None = None, antithetic: bool = False) -> None:
        super().__init__()
        self.likelihood = MonteCarloLikelihood(num_samples, chunk_size, antithetic)

    def forward(self, output: LogitMapOutput, label: Tensor) -> Tensor:
        """Training output and label (B, R, *S) -> scalar."""
        return self.likelihood(output, label).mean()

    def terms(self, output: LogitMapOutput, label: Tensor) -> dict[str, Tensor]:
        """{"likelihood": ()}, averaged over the batch."""
        return {name: module(output, label).mean() for name, module in self.named_terms().items()}

    def named_terms(self) -> dict[str, nn.Module]:
        """The modules whose outputs the terms are, by name: a handler listens to them through forward hooks."""
        return {"likelihood": self.likelihood}
