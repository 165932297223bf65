"""Getting FER2013, and checking that what one has is the whole of it."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from pathlib import Path

from fer_experiments.config import project_root
from fer_experiments.config.commands import get_data_command
from fer_experiments.data.readers import find_fer2013, read_faces
from fer_experiments.errors import UserError, first_line
from fer_experiments.terminal import say, shown

HANDLE = "msambare/fer2013"
URL = f"https://www.kaggle.com/datasets/{HANDLE}"
ZIP_SHA256 = "f9e170be34a546df7328720a5ea97d90237f3349001dbd4b0c9cfd57671da633"  # one packing of it, known to be whole
COUNTS = {"Training": 28709, "PublicTest": 3589, "PrivateTest": 3589}


def download_fer2013(target: Path) -> Path:
    """Fetch FER2013 from Kaggle, check it and pack it as the zip `target`, which appears only when complete.

    Raises UserError with the page's address and what to do by hand where Kaggle cannot be reached or refuses.
    """
    import kagglehub

    try:
        folder = Path(kagglehub.dataset_download(HANDLE))
    except Exception as error:  # kagglehub documents none of what it raises: requests', its own, OSError
        reason = first_line(error)
        raise UserError(
            f"FER2013 could not be fetched from Kaggle ({reason}); download {URL} by hand and put the zip at {target}"
        ) from error
    verify_fer2013(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:  # JPEGs do not shrink
        for file in sorted(folder.rglob("*.jpg")):
            archive.write(file, file.relative_to(folder))
    return partial.replace(target)


def verify_fer2013(path: Path) -> str:
    """Return one line that says what was found at `path`.

    The known zip is told by its sha256; any other form is read and its images counted by Usage. Raises UserError where
    the counts are not those of FER2013.
    """
    if path.is_file():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == ZIP_SHA256:
                return f"{path}: FER2013, {sum(COUNTS.values()):,} images, sha256 as expected"
    counts = Counter(read_faces(path).usage.tolist())
    if counts != COUNTS:
        found = ", ".join(f"{usage or 'no usage'} {count:,}" for usage, count in sorted(counts.items()))
        expected = ", ".join(f"{usage} {count:,}" for usage, count in COUNTS.items())
        raise UserError(f"{path}: not the whole of FER2013: {found} images, expected {expected}; fetch {URL} again")
    return f"{path}: FER2013, {counts.total():,} images, counts by usage as expected"


def fetch() -> str:
    """Get FER2013 where `find_fer2013` looks, unless it is there, and return what was found in it, checked.

    Raises UserError for a download that fails, and for data that are not FER2013.
    """
    found = find_fer2013()
    return verify_fer2013(found or download_fer2013(project_root() / "data" / "fer2013.zip"))


def default_sweep() -> str:
    """The sweep of `fer sweep` alone: the real thing where FER2013 is at hand, else the demo; says so."""
    found = find_fer2013()
    if found is None:
        say(
            "FER2013 is not at hand ($FER2013, data/fer2013*): running on drawn demo faces with the pocket backbone. "
            f"`{get_data_command()}` gets FER2013."
        )
        return "sweep=quick"
    say(f"FER2013 found at {shown(found)}: running sweeps/paper.yaml")
    return "sweep=paper"
