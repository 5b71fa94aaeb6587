"""The service's tests: `test_<module>.py` says what a module does."""
