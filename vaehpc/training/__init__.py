"""The nets and their training: the one place that computes with TensorFlow."""
