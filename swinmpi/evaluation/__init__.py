"""How good an SR stack is against the truth."""
