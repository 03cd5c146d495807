"""The panels in which a circuit is drawn, and what each takes from an edge table."""

PANELS = {"base": "base_strength", "tuned": "tuned_strength", "difference": "difference"}
"""What each panel draws: the column that decides which edges are strongest there."""

EFFECTS = {"base": "base_effect", "tuned": "tuned_effect", "difference": "tuned_effect"}
"""Whose sign counts in each panel."""
