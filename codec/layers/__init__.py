"""Building blocks of the learned codecs' transforms."""
