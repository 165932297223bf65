"""Faces: readers, cleaning, splits, fingerprints, and the sealed test split."""

from fer_experiments.data.dataset import Dataset, TestSplit, load_dataset, open_test_split
from fer_experiments.data.describe import describe, remarks
from fer_experiments.data.faces import Faces, images_digest
from fer_experiments.data.readers import find_fer2013, find_source
from fer_experiments.data.together import train_and_val

__all__ = [
    "Dataset",
    "Faces",
    "TestSplit",
    "describe",
    "find_fer2013",
    "find_source",
    "images_digest",
    "load_dataset",
    "open_test_split",
    "remarks",
    "train_and_val",
]
