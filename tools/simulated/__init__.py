"""Simulated raw data, one module per source: for tests, for the pictures of the docs, for trying the commands."""
