"""HTTP around the cascade: problems, keys, request ids, the access log and the schemas."""
