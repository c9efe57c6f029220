"""From examples on disk to batches: augmentation, training and evaluation loaders, NumPy only."""
