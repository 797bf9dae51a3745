"""Objectives, data and the loop that trains what `generation` samples."""
