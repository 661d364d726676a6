"""From sampled logits to what is evaluated and saved: masks, mean prediction, mean, standard deviation, entropy.

The transforms take samples (N, K, *S) of one case or (B, N, K, *S) of a batch; ``spatial_dims`` says which axes are
which, counted from the end, and None that the data are one case, whatever its spatial dimensions. K = 1 is binary
(sigmoid), K > 1 are classes (softmax). Where the input is a MONAI ``MetaTensor`` so are the results, with the input's
affine and file name.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from copy import deepcopy
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.networks.utils import eval_mode
from monai.transforms import MapTransform
from torch import Tensor, nn

from ..errors import InputError
from ..precision import TIE

__all__ = ["LogitsToMasksd", "MeanPredictiond", "SummarizeSamplesd"]

# Of a large volume the probabilities of all samples at once would take as much memory again as their logits.
_BLOCK_ELEMENTS = 1 << 25


class LogitsToMasksd(MapTransform):
    """Replace sampled logits ([B,] N, K, *S) by class maps ([B,] N, *S) uint8: logit > 0, or the largest of K > 1.

    Args:
        keys: entries to replace.
        spatial_dims: 2 or 3; None: the data are one case.
        allow_missing_keys: skip keys that the data lack.

    Raises:
        InputError: another number of axes.
    """

    def __init__(
        self, keys: KeysCollection = "pred", spatial_dims: int | None = 2, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spatial_dims = spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            logits, classes = _samples(result[key], self.spatial_dims)
            result[key] = _like(_masks(logits, classes), result[key])
        return result


class MeanPredictiond(MapTransform):
    """Add the one answer that stands for the samples, e.g. ``pred_mean_mask`` ([B,] *S) uint8 for ``pred``.

    It is the class map of the mean of the samples' probabilities (as PHiSeg is evaluated, SSN section 5.2): above one
    half, or the largest of K > 1. A network that has a mean of its own says so by a method ``mean_logits(image)``,
    (B, C, *S) -> (B, K, *S); where such a ``network`` is given its mean is taken (of an SSN the mean of the logit map's
    distribution). Sampled logits ([B,] N, K, *S) stay: call it before :class:`LogitsToMasksd`.

    Args:
        keys: entries of sampled logits.
        spatial_dims: 2 or 3; None: the data are one case.
        network: asked for ``mean_logits``; None, or one without: the samples are averaged.
        inferer: asked instead of such a network, where an image is too large for it: called as MONAI's inferers are,
            ``inferer(image, network)`` -> (B, 1, K, *S), e.g. a ``SamplingInferer`` of one sample at temperature 0,
            which of a network whose mean is its own is that mean.
        image_key: the image ([B,] C, *S).
        allow_missing_keys: skip keys that the data lack.

    Raises:
        InputError: another number of axes, or a mean of another size than the samples'.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        spatial_dims: int | None = 2,
        network: nn.Module | None = None,
        inferer: Callable[..., Any] | None = None,
        image_key: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spatial_dims = spatial_dims
        network = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
        self.network: Any = network if hasattr(network, "mean_logits") else None
        self.inferer = inferer
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            logits, classes = _samples(result[key], self.spatial_dims)
            if self.network is None:
                mean = _mean_answer(logits, classes)
            else:
                mean = self._mean_logits(result[self.image_key], logits, classes)
            result[f"{key}_mean_mask"] = _like(_masks(mean, classes), result[key])
        return result

    def _mean_logits(self, image: Any, logits: Tensor, classes: int) -> Tensor:
        """([B,] K, *S) on the samples' device."""
        batched = logits.ndim == 2 - classes
        image = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
        image = image if batched else image.unsqueeze(0)
        with eval_mode(self.network):  # the evaluator does so only while it infers
            if self.inferer is None:
                mean = self.network.mean_logits(image)
            else:
                mean = self.inferer(image, self.network)[:, 0]
        mean = (mean if batched else mean.squeeze(0)).to(logits.device)
        expected = logits.select(classes - 1, 0).shape
        if mean.shape != expected:
            raise InputError(
                f"mean_logits gave {tuple(mean.shape)} for samples of {tuple(logits.shape)}, {tuple(expected)} "
                "expected; give the inferer that the samples went through, or no network."
            )
        return mean


class SummarizeSamplesd(MapTransform):
    """Add what a reader of several plausible segmentations looks at; sampled logits ([B,] N, K, *S) stay.

    For ``pred`` these are, with p_n the probabilities of sample n and p their mean over the N samples,

    - ``pred_mean`` ([B,] K, *S): p;
    - ``pred_std`` ([B,] K, *S): the samples' standard deviation sqrt(mean_n (p_n - p)^2);
    - ``pred_entropy`` ([B,] 1, *S): entropy of p in nats, at most ln 2 (binary) or ln K;
    - ``pred_samples`` ([B,] N, *S) uint8: the class map of each sample.

    All are float32 but the last.

    Args:
        keys: entries of sampled logits.
        spatial_dims: 2 or 3; None: the data are one case.
        allow_missing_keys: skip keys that the data lack.

    Raises:
        InputError: another number of axes.
    """

    def __init__(
        self, keys: KeysCollection = "pred", spatial_dims: int | None = 2, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spatial_dims = spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            logits, classes = _samples(result[key], self.spatial_dims)
            logits = logits.float()
            binary = logits.shape[classes] == 1
            probability = logits.sigmoid() if binary else logits.softmax(classes)
            std, mean = torch.std_mean(probability, dim=classes - 1, correction=0)  # ([B,] K, *S)
            entropy = torch.special.entr(mean).sum(classes, keepdim=True)
            if binary:
                entropy = entropy + torch.special.entr(1.0 - mean)
            for name, value in (("mean", mean), ("std", std), ("entropy", entropy)):
                result[f"{key}_{name}"] = _like(value, result[key])
            result[f"{key}_samples"] = _like(_masks(logits, classes), result[key])
        return result


def _samples(value: Any, spatial_dims: int | None) -> tuple[Tensor, int]:
    """The logits and their class axis, counted from the end."""
    logits = value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(value)
    if spatial_dims is None:
        spatial_dims = logits.ndim - 2
    if logits.ndim not in (spatial_dims + 2, spatial_dims + 3):
        raise InputError(
            f"samples of shape {tuple(logits.shape)} found, ([B,] N, K, *S) with {spatial_dims} spatial dimensions "
            "expected; pass the output of a sampling inferer or correct spatial_dims."
        )
    return logits, -1 - spatial_dims


def _masks(logits: Tensor, classes: int) -> Tensor:
    if logits.shape[classes] == 1:
        return (logits.squeeze(classes) > 0).to(torch.uint8)
    return logits.argmax(classes).to(torch.uint8)


def _mean_answer(logits: Tensor, classes: int) -> Tensor:
    """([B,] K, *S) with the class map of the samples' mean probabilities p: p, or 2 p - 1 where K = 1.

    The order of the samples decides no tie: the sum is float64, and of classes whose means differ by rounding the first
    is the largest.
    """
    samples, exact = classes - 1, torch.float32 if logits.device.type == "mps" else torch.float64
    step = max(1, _BLOCK_ELEMENTS * logits.shape[samples] // max(1, logits.numel()))
    total: Tensor | None = None
    for part in logits.split(step, dim=samples):
        part = part.float()
        # tanh(x / 2) = 2 sigmoid(x) - 1, and keeps the sign of the smallest x
        answer = ((part / 2).tanh() if part.shape[classes] == 1 else part.softmax(classes)).sum(samples, dtype=exact)
        total = answer if total is None else total + answer
    assert total is not None
    mean = total / logits.shape[samples]
    if mean.shape[classes] > 1:
        largest = mean.amax(classes, keepdim=True)
        mean = torch.where(mean >= largest - TIE, largest, mean)
    return mean


def _like(value: Tensor, source: Any) -> Tensor:
    if not isinstance(source, MetaTensor):
        return value
    result = MetaTensor(value, meta=deepcopy(source.meta), applied_operations=deepcopy(source.applied_operations))
    result.is_batch = source.is_batch
    return result
