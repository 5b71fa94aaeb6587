"""The endpoints that every service has."""
