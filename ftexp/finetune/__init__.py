"""Which parameters are trainable, at which learning rates, and what stays frozen."""
