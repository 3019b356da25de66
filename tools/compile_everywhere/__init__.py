"""What `tools/compile-everywhere` is made of."""
