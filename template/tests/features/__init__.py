"""One file for each feature; it comes and goes with it."""
