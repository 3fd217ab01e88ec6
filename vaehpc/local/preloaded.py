"""What a fork server imports: TensorFlow, Keras and the statistics, imported but not used, take seconds only once.

VAEHPC_PRELOADED names other modules, where tasks need less: TensorFlow alone holds 700 MB.
What they say of themselves meanwhile is dropped; what is wrong with one is said by the task that needs it.
"""

import contextlib
import os
import signal

from vaehpc.command import silenced
from vaehpc.local.starting import ANALYSIS, task_module

ALL = " ".join(("vaehpc.tasks.train", *ANALYSIS))

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # where Slurm ends a job every process is told; this one outlives its own
with silenced():
    for name in os.environ.get("VAEHPC_PRELOADED", ALL).split():
        with contextlib.suppress(Exception):
            task_module(name)
