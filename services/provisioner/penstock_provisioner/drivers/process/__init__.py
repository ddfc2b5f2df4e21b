"""Replicas as plain processes of this machine: real model code and real ports, but no isolation."""
