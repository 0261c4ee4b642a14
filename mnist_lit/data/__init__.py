"""Where images come from: files, splits, batches."""
