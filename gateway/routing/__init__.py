"""The nodes behind the gateway, and which one answers a request."""
