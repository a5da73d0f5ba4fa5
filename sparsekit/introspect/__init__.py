"""Read a model: choose modules, see what its classes do with them."""
