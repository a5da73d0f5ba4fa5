"""Read model folders with numpy: the manifest, the arrays, and checks of both. Needs no torch."""
