"""Bitstreams to tables, and tables to the best choice of levels."""
