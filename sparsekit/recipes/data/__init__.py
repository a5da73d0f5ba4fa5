"""Data of a recipe: tables from files, labels, splits, batches."""
