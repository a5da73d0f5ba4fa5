"""Statistics from calibration batches: input norms, gradients, Fisher matrices."""
