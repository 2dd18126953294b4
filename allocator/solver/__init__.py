"""The integer program on arrays: exact bounds, and PuLP for the remaining core."""
