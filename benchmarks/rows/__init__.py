"""One module per row of the benchmark."""
