"""The only home of h5py: stacks in, stacks out, training pairs, checkpoints."""
