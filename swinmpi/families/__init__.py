"""What a model family is: what it diffuses, what it is told, how it is trained and
sampled, side by side."""
