"""The event store on a PostgreSQL server."""
