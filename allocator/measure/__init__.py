"""Measure images into tables: which levels are measured, and by which engine."""
