"""A sheet of pairs of near twins, drawn at random from a band of scores, to judge by eye whether they are.

python benchmarks/near_twin_sheets.py 0.98 0.99 [--pairs 50] [--seed 0] [--data data/fer2013.zip] [--cache cache]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fer_experiments.data.cleaning import canonical_order, identical_groups
from fer_experiments.data.near_twins import find_twins
from fer_experiments.data.readers import find_fer2013, read_faces
from fer_experiments.evaluation.faces import face_sheet


def main() -> None:
    """Draws the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("low", type=float)
    parser.add_argument("high", type=float)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=find_fer2013())
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--output", type=Path, default=Path("pairs.png"))
    given = parser.parse_args()
    faces, digests = canonical_order(read_faces(given.data))
    twins = find_twins(faces.images, digests, identical_groups(digests), given.cache)
    band = np.flatnonzero((twins.score >= given.low) & (twins.score < given.high))
    chosen = np.random.default_rng(given.seed).choice(band, min(given.pairs, len(band)), replace=False)
    rows = twins.rows[chosen].ravel()
    pairs = [(f"{n}: {twins.score[i]:.3f}", "mirrored" * bool(twins.mirrored[i])) for n, i in enumerate(chosen, 1)]
    titles = [title for pair in pairs for title in pair]
    face_sheet(faces.images[rows], titles, columns=10).savefig(given.output, dpi=120)
    print(f"{len(chosen)} of {len(band):,} pairs with a score from {given.low} to {given.high}: {given.output}")


if __name__ == "__main__":
    main()
