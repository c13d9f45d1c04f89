"""Pure image work: degradation, quality figures, pictures."""
