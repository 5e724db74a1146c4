"""Samples, splits, the sealed test set, transforms and loading."""
