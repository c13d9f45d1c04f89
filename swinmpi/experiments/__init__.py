"""The thesis's tables and figures from one command: arms of equal budget, compared."""
