"""What Herdbook costs, measured beside peers and floors in the same run."""
