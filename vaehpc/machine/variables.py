"""Environment variables that tasks read on a node. What crosses a container's border is made from this list."""

GPUS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""NVIDIA's and AMD's; where both are set, ROCm's libraries choose by the first among those of the second."""
SCRATCH = ("VAEHPC_SCRATCH", "SLURM_TMPDIR")
"""A folder on the node's own disk; the first that is set counts."""
MPS_PIPES, MPS_LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
READ_ON_NODES = (
    *("SLURM_CONF", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURMD_NODENAME"),
    *GPUS,
    *SCRATCH,
    *(MPS_PIPES, MPS_LOGS),
    *("VAEHPC_GPUS", "OMP_NUM_THREADS", "TF_XLA_FLAGS", "XLA_FLAGS"),
)
