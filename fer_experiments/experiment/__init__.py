"""One experiment: what a config says is prepared, fitted and recorded."""
