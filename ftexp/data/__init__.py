"""Samples, splits, the test split, transforms and loading."""
