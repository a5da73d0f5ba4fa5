"""Times of a model in the engine: of its products at every level and in every form, and of the whole, predicted."""
