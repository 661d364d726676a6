"""Networks: compositions of the parts in :mod:`..blocks`, nothing else."""

from .hierarchical_probabilistic_unet import HierarchicalProbabilisticUNet
from .phiseg import PHiSeg
from .probabilistic_unet import ProbabilisticUNet

__all__ = ["HierarchicalProbabilisticUNet", "PHiSeg", "ProbabilisticUNet"]
