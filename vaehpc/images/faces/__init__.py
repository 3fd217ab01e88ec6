"""Faces that nobody has: sampled traits, the 40 CelebA attributes they amount to, and the picture of them."""
