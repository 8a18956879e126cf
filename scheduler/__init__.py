"""Scheduling of block-diffusion work: pure Python, standard library only."""
