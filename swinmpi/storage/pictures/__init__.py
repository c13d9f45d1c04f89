"""Folders of pictures, read as stacks and written as they grow."""
