"""SparseGPT solutions of every layer at every level, kept on disk and stitched into a model."""
