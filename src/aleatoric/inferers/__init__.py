"""From an image or a volume to many plausible segmentations of it, or to what is kept of them, as MONAI inferers."""

from .sampling import SamplingInferer
from .summarizing import SummarizingInferer
from .walk import Walk

__all__ = ["SamplingInferer", "SummarizingInferer", "Walk"]
