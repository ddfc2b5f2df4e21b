"""The gateway: the data plane in front of every endpoint."""
