"""From what replicas print to batches of log lines."""
