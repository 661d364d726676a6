"""From an image or a volume to a summary of many plausible segmentations of it, never all of which are held."""

from __future__ import annotations

from collections.abc import Callable

from monai.inferers import SlidingWindowInferer
from torch import Tensor

from ..metrics.missing import split_missing
from ..metrics.summary import SampleSummary, summarize_samples
from .sampling import SamplingInferer, check_piece_size, inference_of

__all__ = ["SummarizingInferer"]


class SummarizingInferer(SamplingInferer):
    """Draw segmentations piece after piece and keep of them what an evaluation needs.

    The samples are those of :class:`SamplingInferer` with the same arguments, and the summary is that of all of them at
    once. Memory is what the network takes, a piece, and the summary, of which the masks alone grow with N, by one byte
    a pixel. A batch is never split: of a very large one a piece is one sample of each image.

    The mean prediction is that of the network, where it has one (a method ``mean_logits``), else of the samples. A law
    of maps (``StochasticSegmentationNetwork``) gives it without running once more.

    In MONAI's evaluator, raters' labels come with
    ``prepare_batch=PrepareBatchExtraInput({"label": "label", "rater_valid": "rater_valid"})``, and the summary is
    ``engine.state.output["pred"]`` where the evaluator has ``decollate=False``.

    Args:
        num_samples: N.
        seed: as there.
        temperature: as there.
        volume_inferer: as there.
        piece_size: samples of each image a piece; None: see :meth:`SamplingInferer.pieces`.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int | None = None,
        temperature: float = 1.0,
        volume_inferer: SlidingWindowInferer | None = None,
        piece_size: int | None = None,
    ) -> None:
        super().__init__(num_samples, seed, temperature, volume_inferer)
        check_piece_size(piece_size)
        self.piece_size = piece_size

    def __call__(  # type: ignore[override]
        self,
        inputs: Tensor,
        network: Callable[..., Tensor],
        label: Tensor | None = None,
        rater_valid: Tensor | None = None,
    ) -> SampleSummary:
        """Summarize the samples of images.

        Args:
            inputs: (B, C, *S).
            network: a segmenter.
            label: (B, R, *S) class maps, for the cross-entropies; None: the summary has none.
            rater_valid: (B, R), False where a rater is missing. A rater whose map is 255 throughout is missing too, see
                :mod:`~aleatoric.metrics.missing`.

        Returns:
            The summary, plain tensors on the device of the samples.

        Raises:
            InputError: labels that do not fit the samples, or hold other values than classes.
        """
        sampler, source, size = self._open(inputs, network, self.piece_size)
        with inference_of(sampler):
            mean = source.mean_logits()
        if label is not None:
            label, rater_valid = split_missing(label, rater_valid)
        return summarize_samples(self._pieces(sampler, source, size), label, rater_valid, mean)
