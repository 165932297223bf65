"""Fits: heads on stored features, whole networks on pixels; knows nothing of runs."""
