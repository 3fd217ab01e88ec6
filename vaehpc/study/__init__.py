"""A study on disk: what it was asked to be, every file of it, and who may write them."""
