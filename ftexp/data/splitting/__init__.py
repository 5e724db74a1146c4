"""Splits samples into train, val and test; holds the test split, which a run uses once, and counts its uses."""
