"""Passes as compiled functions, one file a Keras backend, named as it: Keras has no call for them that both know."""
