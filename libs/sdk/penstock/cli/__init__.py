"""The `penstock` command line, on the public client and nothing else."""
