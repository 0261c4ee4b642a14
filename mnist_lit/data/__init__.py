"""Data sets: files, splits, batches, augmentation."""
