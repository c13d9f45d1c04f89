"""Where an image is easy it takes fewer steps: which windows are evaluated, and what that saves."""
