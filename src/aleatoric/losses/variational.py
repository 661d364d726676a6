"""The objective of the latent-variable models: reconstruction plus weighted divergences."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from ..outputs import VariationalOutput

__all__ = ["DivergenceTerm", "VariationalLoss"]


class DivergenceTerm(nn.Module):
    """A divergence and its weight in the objective."""

    def __init__(self, divergence: nn.Module, weight: float = 1.0) -> None:
        super().__init__()
        self.divergence = divergence
        self.weight = weight

    def forward(self, output: VariationalOutput, label: Tensor) -> Tensor:
        """Unweighted value per image, (B,)."""
        return self.divergence(output, label)


class VariationalLoss(_Loss):
    r""":math:`-\log p(y_k|x,z) + \sum_i w_i D_i`, averaged over the images of the batch.

    PU-Net: ``divergences={"kl": DivergenceTerm(KLDivergence(), 1)}``. SPU-Net (eq. 16): KL with weight 10 and Sinkhorn
    with weight 100. The value of an image does not depend on the batch that it is in.

    Args:
        likelihood: (output, label) -> (B,).
        divergences: name -> term, (output, label) -> (B,).
    """

    def __init__(self, likelihood: nn.Module, divergences: Mapping[str, DivergenceTerm]) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.divergences = nn.ModuleDict(dict(divergences))
        self.weights = {name: term.weight for name, term in divergences.items()}

    def forward(self, output: VariationalOutput, label: Tensor) -> Tensor:
        """Training output and label (B, R, *S) -> scalar."""
        terms = self.terms(output, label)
        total = terms["likelihood"]
        for name, weight in self.weights.items():
            total = total + weight * terms[name]
        return total

    def terms(self, output: VariationalOutput, label: Tensor) -> dict[str, Tensor]:
        """Each term by its name, unweighted, averaged over the batch: {"likelihood": (), "kl": (), ...}."""
        return {name: module(output, label).mean() for name, module in self.named_terms().items()}

    def named_terms(self) -> dict[str, nn.Module]:
        """The modules whose outputs the terms are, by name: a handler listens to them through forward hooks."""
        return {"likelihood": self.likelihood, **dict(self.divergences.items())}
