"""Choose how much of a model to compress, and how, by measuring: which sparsity for each layer, for a speed."""
