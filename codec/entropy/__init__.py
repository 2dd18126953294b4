"""Probabilities of latents, identical on every machine, and the entropy coder."""
