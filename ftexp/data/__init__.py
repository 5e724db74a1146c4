"""Samples, splits, the sealed test set, views and loading."""
