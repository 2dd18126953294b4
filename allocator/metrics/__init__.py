"""Metrics: how far decoded pixels are from the original's."""

from allocator.metrics.base import METRICS, Metric, MetricError, get_metric, stored_metric

__all__ = ["METRICS", "Metric", "MetricError", "get_metric", "stored_metric"]
