"""Stack in, stack out: plan, exchange, reverse process, output."""
