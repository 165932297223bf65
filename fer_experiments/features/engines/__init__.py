"""One file an engine, named as `features.engine` is told: each has a `compile_forward`."""
