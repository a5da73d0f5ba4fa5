"""Remove neurons and attention heads, so that layers shrink."""
