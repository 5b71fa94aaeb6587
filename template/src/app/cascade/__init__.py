"""The cascade. No package but this one imports cascadeflow."""
