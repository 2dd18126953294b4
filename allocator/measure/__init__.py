"""Images to tables: which levels are measured, and what measures them."""
