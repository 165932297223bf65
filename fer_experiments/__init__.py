"""Experiment tracking and hyperparameter sweeps for facial expressions on frozen backbones."""
