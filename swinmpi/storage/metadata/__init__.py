"""What a file says about its images beside their pixels, and what of it holds for finer ones."""
