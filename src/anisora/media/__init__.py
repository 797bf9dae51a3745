"""Pixels and time: reading, writing, resizing; the one door between uint8 THWC and float CTHW."""
