"""A sweep's report: one self-contained HTML page, which opens from disk with no network."""
