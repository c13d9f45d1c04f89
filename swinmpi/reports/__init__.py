"""What commands print: progress, tables, where the time went, facts of the machine."""
