"""Training of the learned codecs. Nothing here is needed to encode or decode."""
