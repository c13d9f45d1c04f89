"""Whether an output is what its recorded settings give: some of its images made again."""
