"""What a run yields: a classifier that takes images as they are and answers with class names."""
