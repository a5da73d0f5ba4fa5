"""One page that says what a model costs and what it keeps: sections from plain data, written as one HTML file."""
