"""What the stores share: planning groups of appends, the writer, pages of a read."""
