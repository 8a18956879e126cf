"""What Easel calls its parts under Ray Serve."""

APPLICATION = "easel"
GATEWAYS = "gateways"
WORKERS = "workers"
