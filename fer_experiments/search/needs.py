"""What a command stands on is found, or said to be missing, while nothing heavy is imported yet."""

from __future__ import annotations

from fer_experiments.backbones.preprocessing import parse_scaling
from fer_experiments.backbones.weights import obtain_weights
from fer_experiments.config import Config
from fer_experiments.data import find_source
from fer_experiments.data.cleaning import clean_steps
from fer_experiments.search.space import searched_backbones
from fer_experiments.search.start import check_sweep


def check_needs(config: Config, needs: str) -> None:
    """Looks for the data of a config, unless it needs "data" alone for its backbone, or those of its "space", too.

    Raises:
        UserError: naming what is missing, or what of it cannot be.
    """
    if needs == "space":
        check_sweep(config)
    clean_steps(config.data.clean)
    find_source(config.data)
    for backbone in [] if needs == "data" else searched_backbones(config) if needs == "space" else [config.backbone]:
        parse_scaling(backbone)
        obtain_weights(backbone)
