"""The article's VAE in numbers, for all who build it."""

SIZE, BATCH, Z_DIM = 96, 128, 256
FILTERS = (32, 64, 128, 256)
KL_WEIGHT = 1e-5
LEARNING_RATE = 5e-4
NUM_CHECKED, TOLERANCE = 3, 1e-4
"""Steps in which a rival's losses must be ours, and their relative difference at most."""
