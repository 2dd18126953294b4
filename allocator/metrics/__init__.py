"""Metrics: how far decoded pixels are from the original's."""

from allocator.metrics.base import METRICS, STAND_IN, Metric, MetricError, get_metric, get_perceptual, stored_metric

__all__ = ["METRICS", "STAND_IN", "Metric", "MetricError", "get_metric", "get_perceptual", "stored_metric"]
