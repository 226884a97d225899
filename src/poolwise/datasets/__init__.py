"""Data sets: loading, splitting, augmentation and batching of images."""
