"""Networks: compositions of the parts in :mod:`..blocks`, nothing else."""

from .probabilistic_unet import ProbabilisticUNet

__all__ = ["ProbabilisticUNet"]
