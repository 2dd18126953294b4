"""A page to explore allocations, which solves while its controls move; served to this machine only."""
