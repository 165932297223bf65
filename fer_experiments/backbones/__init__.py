"""Frozen backbones: networks up to their cut layers, their weights, and what they were trained to be given."""
