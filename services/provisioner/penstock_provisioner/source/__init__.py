"""From a git address to code and an environment: fetched, checked, pinned, cached. Nothing of it is executed here."""
