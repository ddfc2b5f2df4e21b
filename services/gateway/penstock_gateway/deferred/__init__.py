"""Requests that are answered later: `Prefer: respond-async`."""
