"""Requests and lists of models that the gateway changes."""
