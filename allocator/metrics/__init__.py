"""Metrics: how far decoded pixels are from the original's."""

from allocator.metrics.base import Metric, MetricError
from allocator.metrics.registry import METRICS, get_metric, names, stored_metric

__all__ = ["METRICS", "Metric", "MetricError", "get_metric", "names", "stored_metric"]
