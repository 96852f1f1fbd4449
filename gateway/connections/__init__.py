"""Connections of clients and to the server."""
