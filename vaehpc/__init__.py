"""How often does a VAE with a tiny KL loss diverge? Many seeds of several arms as batch jobs, with exact intervals."""

import os

__version__ = "0.2.0"

# TensorFlow decides by the processor whether it uses oneDNN, and results differ in the last bits. Always on: the same
# numbers on more machines, and 1.4 times the speed on those where TensorFlow would leave it off. Here, because
# TensorFlow reads it when it is imported, which must not come first.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
