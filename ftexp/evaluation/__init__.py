"""Evaluation of predictions: metrics, their intervals, and comparisons of two sets of predictions."""
