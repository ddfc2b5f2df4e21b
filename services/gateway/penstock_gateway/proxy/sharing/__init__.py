"""Several gateways: each endpoint has one owner among them, and the others forward to it."""
