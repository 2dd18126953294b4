"""``python -m allocator``, for launchers that start modules."""

from allocator.cli import main

main()
