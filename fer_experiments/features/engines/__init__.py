"""One file an engine, named as the Keras backend that it is for: each has a `compile_forward`."""
