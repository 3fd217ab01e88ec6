"""Arrays in, values out: no files, no TensorFlow."""
