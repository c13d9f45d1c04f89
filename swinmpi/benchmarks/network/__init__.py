"""What the exchanges cost over a network: measured between nodes of one machine, and modelled."""
