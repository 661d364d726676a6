"""Networks: compositions of the parts in :mod:`..blocks`, nothing else."""

from .deepmedic import DeepMedic
from .deterministic import DeterministicSegmentationNetwork
from .ensembles import EnsembleNetwork, MultiHeadNetwork, fresh_copies
from .hierarchical_probabilistic_unet import HierarchicalProbabilisticUNet
from .perturbed import AugmentedInferenceNetwork, MonteCarloDropoutNetwork
from .phiseg import PHiSeg
from .probabilistic_unet import ProbabilisticUNet
from .stochastic_segmentation_network import StochasticSegmentationNetwork

__all__ = [
    "AugmentedInferenceNetwork",
    "DeepMedic",
    "DeterministicSegmentationNetwork",
    "EnsembleNetwork",
    "HierarchicalProbabilisticUNet",
    "MonteCarloDropoutNetwork",
    "MultiHeadNetwork",
    "PHiSeg",
    "ProbabilisticUNet",
    "StochasticSegmentationNetwork",
    "fresh_copies",
]
