"""Segmentation of medical images on which experts disagree: many plausible masks, a consensus, an honest doubt."""

__version__ = "0.1.0"
