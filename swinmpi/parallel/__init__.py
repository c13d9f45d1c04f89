"""The only home of mpi4py: communicators, ownership of windows, exchange, launch."""
