"""Experiment tracking and hyperparameter sweeps for facial expressions on frozen backbones."""

from fer_experiments.ambient import pin

pin()
