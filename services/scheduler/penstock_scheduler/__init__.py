"""The single owner of the lifecycle: hosts, GPUs, the queue, replicas and every transition."""
