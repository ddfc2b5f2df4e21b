"""Ways to run a replica; all speak `protocol.Driver`."""
