"""The model server that runs inside every replica, in the model's own environment."""

REQUIREMENTS: tuple[str, ...] = ("pydantic>=2.11", "uvicorn>=0.35", "httptools>=0.6")
"""What this package needs; resolved together with the model's own requirements."""
