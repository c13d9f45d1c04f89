"""Tests in the rooms of the package; contracts: one suite for a seam; machines: faults,
fuzzing, Slurm."""
