"""Everything that depends on the insides of transformers and sentence-transformers."""
