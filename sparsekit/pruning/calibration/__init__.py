"""What calibration batches say of weights: norms of inputs, gradients, Fisher matrices."""
