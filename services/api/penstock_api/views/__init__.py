"""The bodies and answers of the public API, each field described: what OpenAPI shows."""
