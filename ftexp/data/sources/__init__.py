"""The sources of data: each lists the images of a dataset as samples."""
