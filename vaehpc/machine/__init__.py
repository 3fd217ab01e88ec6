"""This machine: its processors, GPUs and memory, and the processes on it."""
