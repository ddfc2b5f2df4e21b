"""One provisioner per host: makes what runs there match what the scheduler assigned to it."""
