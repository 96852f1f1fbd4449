"""What the verbs run: service, gateway, sandbox, the guided tour."""
