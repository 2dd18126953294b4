"""Metrics compare decoded pixels with those of the original."""

from allocator.metrics.base import Metric, MetricError
from allocator.metrics.registry import METRICS, get_metric, names, stored_metric

__all__ = ["METRICS", "Metric", "MetricError", "get_metric", "names", "stored_metric"]
