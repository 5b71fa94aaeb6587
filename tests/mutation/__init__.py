"""The template with one thing taken away at a time: some test must turn red."""
