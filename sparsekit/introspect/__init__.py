"""Read a model: select modules, find transformer blocks, read what its classes' code does with modules."""
