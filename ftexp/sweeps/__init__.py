"""Hyperparameter searches over many runs, with Optuna."""
