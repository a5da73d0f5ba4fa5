"""SparseGPT: prune layer by layer on calibration batches and correct the weights that stay."""
