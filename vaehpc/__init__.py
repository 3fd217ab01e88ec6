"""How often does a VAE with a tiny KL loss diverge? Many seeds of several arms as batch jobs, with exact intervals."""

__version__ = "0.1.0"
