"""A run as one file for another runtime: decoded pixels in, probabilities out, and the proof that it answers alike."""
