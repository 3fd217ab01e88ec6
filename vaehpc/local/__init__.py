"""A study on this machine: its stages, on slots that are its processors or GPUs."""
