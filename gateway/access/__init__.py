"""Who may send what: hosts, tokens, limits and budgets."""
