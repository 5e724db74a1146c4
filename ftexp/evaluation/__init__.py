"""What a split's predictions are worth: metrics, their intervals, and comparisons of two sets of predictions."""
