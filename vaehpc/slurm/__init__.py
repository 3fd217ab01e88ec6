"""A study in Slurm's queue: its client, arrays, batch scripts, and the containers in which they run."""
