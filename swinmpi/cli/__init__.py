"""Thin entry points: parse, load, dispatch, map errors to exit codes."""
