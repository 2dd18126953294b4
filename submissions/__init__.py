"""Pack an allocation into archives, and verify that they decode."""
