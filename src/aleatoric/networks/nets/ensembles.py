"""Several fixed answers per image: an ensemble of networks, and one network with several heads."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import InputError
from .deterministic import MemberNetwork

__all__ = ["EnsembleNetwork", "MultiHeadNetwork", "fresh_copies"]


class EnsembleNetwork(MemberNetwork):
    """M networks that know nothing of each other, trained side by side in one run and kept in one state dict.

    Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles" (2017):
    members differ in their initialisation. Here they see the same batches, so that nothing else differs, and a member
    has exactly the training that it would have alone, as long as the objective is a SUM over the members and the
    gradient is not clipped over all of them.

    Args:
        members: image (B, C, *S) -> logits (B, K, *S), e.g. :class:`DeterministicSegmentationNetwork` or a network of
            MONAI's. :func:`fresh_copies` makes them of one.
        bf16: run them in bfloat16 under autocast, on any device.

    Raises:
        InputError: no member, or members of different margin.
    """

    def __init__(self, members: Sequence[nn.Module], bf16: bool = False) -> None:
        margins = sorted({int(getattr(member, "margin", 0)) for member in members})
        if len(margins) != 1:
            raise InputError(
                f"{len(members)} members with the margins {margins} found, but at least one is expected, and one "
                f"margin: give networks of one kind."
            )
        super().__init__(bf16, margins[0])
        self.networks = nn.ModuleList(members)

    def members(self, image: Tensor, count: int) -> Tensor:
        """Answers of the first ``count`` networks, of all for 0: (B, C, *S) -> (B, M, K, *S)."""
        answers: list[Tensor] = []
        for i, network in enumerate(self.networks):
            if i < count or count == 0:
                answers.append(network(image).float())
        return torch.stack(answers, dim=1)


class MultiHeadNetwork(MemberNetwork):
    """M heads on one backbone, each of which learns one of the answers: multiple-choice learning.

    Lee et al., "Why M Heads are Better than One" (2015); Rupprecht et al., "Learning in an Uncertain World" (2017). To
    be trained with :class:`~aleatoric.losses.BestMemberCrossEntropy`.

    Args:
        backbone: image (B, C, *S) -> features (B, F, *S).
        head: features -> (B, M * K, *S), the M heads' logits one after the other, e.g. a 1x1 convolution.
        num_heads: M.
        bf16: run both in bfloat16 under autocast, on any device.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, num_heads: int, bf16: bool = False) -> None:
        super().__init__(bf16, int(getattr(backbone, "margin", 0)))
        self.backbone = backbone
        self.head = head
        self.num_heads = num_heads

    def members(self, image: Tensor, count: int) -> Tensor:
        """Every head's answer: (B, C, *S) -> (B, M, K, *S)."""
        logits = self.head(self.backbone(image)).float()  # (B, M * K, *S)
        return logits.unflatten(1, [self.num_heads, logits.shape[1] // self.num_heads])


@torch.no_grad()
def fresh_copies(network: nn.Module, count: int) -> list[nn.Module]:
    """``network`` and copies of it with weights drawn anew, ``count`` in all.

    A copy has the entries of each parameter in another random order: for entries that were initialised independently
    and alike, as all weights here, that is a draw of the same law, whatever the law is. A parameter of one entry (the
    bias of one logit) begins alike in all.

    Raises:
        InputError: fewer than one.
    """
    if count < 1:
        raise InputError(f"{count} copies of a network asked for, but at least one is expected: give a larger number.")
    copies = [network, *(copy.deepcopy(network) for _ in range(count - 1))]
    for other in copies[1:]:
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), device=parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copies
