"""Samples, their sources, splits, augmentation and loading."""
