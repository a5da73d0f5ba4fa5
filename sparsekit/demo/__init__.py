"""The demo: speed of a sparse model on this machine, then its accuracy, by a recipe."""
