"""What runs on a node: read a directory, compute, write it."""
