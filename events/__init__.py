"""Facts about models, what each does to a model's state, and where they are kept."""
