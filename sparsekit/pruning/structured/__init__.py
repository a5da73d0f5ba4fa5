"""Structured pruning: remove neurons and attention heads, so that layers become smaller dense layers."""
