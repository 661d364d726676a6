"""A segmentation task whose law p(y | x) is known exactly, and what is measured of a model on it."""
