"""SparseGPT: one-shot pruning with second-order correction."""
