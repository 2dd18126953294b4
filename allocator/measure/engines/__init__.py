"""What does a build's work: processes of this machine, or a cluster."""

from allocator.measure.engines.base import Engine, WorkerLost
from allocator.measure.engines.local import Local
from allocator.measure.engines.ray import Ray

__all__ = ["Engine", "Local", "Ray", "WorkerLost"]
