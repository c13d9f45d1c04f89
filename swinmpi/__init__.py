"""Super-resolution of HDF5 image stacks by a diffusion model whose sampling is shared by
many MPI ranks."""

__version__ = "0.1.0"
