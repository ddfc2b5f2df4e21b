"""What operators see of replicas on /metrics."""

from prometheus_client import Counter, Gauge, Histogram

_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)

replicas = Gauge("penstock_replicas", "Replicas on this host by phase.", ["phase"])
ended = Counter("penstock_replicas_ended", "Replicas that ended, by cause.", ["cause"])
prepare_s = Histogram("penstock_replica_prepare_seconds", "Fetching and installing.", buckets=_BUCKETS_S)
start_s = Histogram("penstock_replica_start_seconds", "From start to the first good ping.", buckets=_BUCKETS_S)
reports_unsent = Gauge("penstock_reports_unsent", "Reports waiting to be sent.")
