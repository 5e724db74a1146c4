"""Fine-tuning of pretrained image classifiers, configured with Hydra."""

__version__ = "0.1.0"
