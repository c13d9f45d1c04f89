"""The shipped checkpoint, sample stack and their provenance."""
