"""Figures: one drawing function a file, from plain results, without torch."""
