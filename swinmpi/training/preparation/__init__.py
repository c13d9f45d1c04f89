"""What swinmpi-prepare does with images, from where they come from to the pairs."""
