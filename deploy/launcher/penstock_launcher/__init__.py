"""The one-machine launcher: the whole platform as supervised processes."""
