"""Photographs to pairs, pairs to a trained model."""
