"""Names that scripts queued by 0.1.0 use; goes with 0.3.0."""

from vaehpc.local.pool import Task, run_pack

__all__ = ["Task", "run_pack"]
