"""Assignments of sparsities to layers: what is tried of each, and the search for those that move outputs least."""
