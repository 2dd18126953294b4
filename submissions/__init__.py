"""A choice of levels to an archive, and proof that it decodes."""
