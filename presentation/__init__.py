"""What all faces tell alike: words, times, JSON shapes, the state diagram."""
