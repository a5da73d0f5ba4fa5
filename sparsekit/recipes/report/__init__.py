"""Report of a run: scores with intervals, comparison of the dense and the compressed model, text, plots."""
