"""A registered model in use: predictions for pictures, over HTTP, and in the formats of other runtimes."""
