"""``python -m ftexp.predict``: what a trained classifier says of any number of images, in a table or in folders."""
