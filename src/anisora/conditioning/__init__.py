"""Guides, masks and kept video become condition tensors, for generation and training alike."""
