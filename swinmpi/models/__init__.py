"""Neural networks only: no files, no communicators, no windows geometry."""
