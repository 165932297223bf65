"""Sweeps: a space, an oracle, trials, and what came of them."""
