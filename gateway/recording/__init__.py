"""What exchanges show about uses of models, and how that is recorded."""
