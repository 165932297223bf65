"""Features of a frozen backbone: computed once, stored, read as memory maps."""
