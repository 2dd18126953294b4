"""The integer program on arrays: exact bounds, and PuLP for what they leave over."""
