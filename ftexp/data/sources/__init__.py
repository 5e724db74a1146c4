"""What lists the images of a data set."""
