"""What is made to be looked at: a picture of every run, contact sheets of swept settings."""
