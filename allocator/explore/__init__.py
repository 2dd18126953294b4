"""A page that solves an allocation again as its controls move, served to this machine's browser alone."""
