"""The proof of the template: every variant, every answer, every promise."""
