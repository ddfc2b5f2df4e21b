"""The two drivers that carry out what flows ask for: one blocks, one awaits. All I/O is here."""
