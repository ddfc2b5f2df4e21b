"""How many replicas an endpoint needs: pure, explained, and the same for the same past."""
