"""Searches over many runs, with Optuna."""
