"""The engines that do a build's work: local processes, or a cluster."""

from allocator.measure.engines.base import Engine, WorkerLost
from allocator.measure.engines.local import Local
from allocator.measure.engines.ray import Ray

__all__ = ["Engine", "Local", "Ray", "WorkerLost"]
