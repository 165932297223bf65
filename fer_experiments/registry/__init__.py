"""From the best trial to a model in use: refit, assemble, test once, gate, register, go back."""

from fer_experiments.registry.promote import promote
from fer_experiments.registry.versions import list_models, rollback

__all__ = ["list_models", "promote", "rollback"]
