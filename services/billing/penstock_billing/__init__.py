"""Billing: the metering ledger. It turns lifecycle facts into segments, and segments into money."""
