"""Whether images are like others: statistics of crops, and between which numbers they lie."""
