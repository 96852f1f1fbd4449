"""The service: HTTP API, live events, dashboard."""
