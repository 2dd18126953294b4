"""What does a build's work: processes of this machine, or a cluster."""

from allocator.engines.base import Engine, WorkerLost
from allocator.engines.local import Local
from allocator.engines.ray import Ray

__all__ = ["Engine", "Local", "Ray", "WorkerLost"]
