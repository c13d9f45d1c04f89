"""Pure window geometry: grids, shifts, cutting and pasting windows, attention masks."""
