"""What sampling and training cost here."""
