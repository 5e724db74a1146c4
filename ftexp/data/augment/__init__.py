"""Preprocessing and augmentation, of single images and of whole batches."""
