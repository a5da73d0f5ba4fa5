"""A model folder from numpy: its manifest, its arrays, and checks of both. Needs no torch."""
