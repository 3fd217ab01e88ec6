"""What the training computes on."""

from __future__ import annotations

import os

import tensorflow as tf

from vaehpc.machine.hardware import RUNS_ON_GPU, gpu_memory
from vaehpc.schema.config import TrainConfig


def is_compiled(train: TrainConfig) -> bool:
    """Whether XLA compiles the training here: a block of steps as one program."""
    return bool(tf.config.list_logical_devices("GPU")) if train.jit_compile is None else train.jit_compile


def memory_of_gpu() -> int:
    """Bytes of the GPU's memory that are this run's, of as many as share it; 0 where TensorFlow sees none."""
    return gpu_memory() // int(os.environ.get(RUNS_ON_GPU, "1")) if tf.config.list_logical_devices("GPU") else 0
