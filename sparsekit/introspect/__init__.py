"""Inspect a model: select modules, find transformer blocks, analyze the source code of its classes."""
