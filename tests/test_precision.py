"""Which type a network computes in, and what it makes of flags for its raters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aleatoric.errors import InputError
from models import hierarchical_unet, phiseg, probabilistic_unet

NETWORKS = [probabilistic_unet, hierarchical_unet, phiseg]


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize(("own", "around"), [(False, False), (True, False), (False, True)])
def test_an_autocast_that_is_around_stays(make, own, around):
    """MONAI's ``amp`` reaches a network that does not ask for bfloat16 itself."""
    network = make(bf16=own).eval()
    seen = []
    first = next(module for module in network.prior.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=around):
        assert network.sample(torch.rand(1, 1, 16, 16), 2).dtype == torch.float32
    assert set(seen) == {torch.bfloat16 if own or around else torch.float32}


@pytest.mark.parametrize("make", NETWORKS)
def test_flags_that_do_not_fit_the_label_are_refused(make):
    network, image, label = make(), torch.rand(2, 1, 16, 16), torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    for flags, shown in ((torch.ones(1, 3), label), (torch.ones(2, 2), label), (None, label[:, :0])):
        with pytest.raises(InputError, match="with at least one rater"):
            network(image, label=shown, rater_valid=flags)
    network(image, label=label, rater_valid=torch.ones(2, 3, dtype=torch.int64))  # numbers are flags too
