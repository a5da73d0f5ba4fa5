"""A report page of a model: quality, speed, layers and size, from plain data to one HTML file."""
