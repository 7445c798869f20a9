"""What Prometheus and Grafana need, made from the registry of metrics: nothing here is written by hand a second time."""
