"""Weights: the model families, the catalog of checkpoints, and the parts that stock diffusers does not have."""
