"""Probabilities of latents, made the same on every machine, and the coder that spends their bits."""
