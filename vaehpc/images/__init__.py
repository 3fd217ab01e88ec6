"""CelebA-format images in, TFRecord shards out."""
