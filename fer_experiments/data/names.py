"""What names of folders and labels mean: emotions and splits, by one rule for every reader and every config."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fer_experiments.data.faces import EMOTIONS
from fer_experiments.errors import UserError
from fer_experiments.terminal import fit

# Other words for FER2013's emotions that mean nothing else. Not joy: finer sets have it beside happiness.
SYNONYMS = {
    "anger": "angry",
    "disgusted": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "scared": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "suprise": "surprise",  # as some sets spell it
    "surprised": "surprise",
}
KNOWN = (*EMOTIONS, "contempt")
SPLITS = {
    "train": "Training",
    "training": "Training",
    "val": "PublicTest",
    "valid": "PublicTest",
    "validation": "PublicTest",
    "dev": "PublicTest",
    "publictest": "PublicTest",
    "test": "PrivateTest",
    "testing": "PrivateTest",
    "privatetest": "PrivateTest",
}
DIGITS = 4300  # of the longest number that Python reads
FILLER = re.compile(r"(set|split|data|images?|faces?|[0-9]+)$")  # trainset, train_set, TestImages, test_1


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key under which "face-10" comes after "face-9"."""
    return [
        (_number(part), part if len(part) > DIGITS else "") if part.isdecimal() else (-1, part)
        for part in re.split(r"([0-9]+)", name)
    ]


def _number(digits: str) -> int:
    """What digits say; of more than Python reads, how long they are, beyond all that it reads."""
    return int(digits) if len(digits) <= DIGITS else 10**DIGITS + len(digits)


def fold(name: str) -> str:
    """Return the one form of a name that is written with other capitals, accents as macOS writes them, or spaces."""
    return unicodedata.normalize("NFC", name).strip().lower()


def emotion_named(name: str) -> str:
    """Return the emotion that a word says: FER2013's name where it is a usual synonym of one, else the word folded."""
    return SYNONYMS.get(fold(name), fold(name))


def split_named(folder: str) -> str:
    """Return the Usage that a folder's name says, "" for none: train, Testing, train_set, FER2013Valid, FERPlus-dev."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W_]", folder)]
    while words and (bare := FILLER.sub("", words[-1])) != words[-1]:
        words[-1:] = [bare] if bare else []
    return SPLITS.get("".join(words[-2:])) or SPLITS.get("".join(words[-1:]), "")  # PublicTest is two words


def doubts(names: Iterable[str]) -> list[str]:
    """Return a line for a person where none of the names is that of an expression, else none."""
    given = list(names)
    if any(name in KNOWN for name in given):
        return []
    shown = ", ".join(given[:5]) + (", ..." if len(given) > 5 else "")
    if all(name.isdecimal() for name in given):
        say = f"'data.emotions={{{given[0]}:<emotion>,...}}'"
        return [f"the classes are numbers ({shown}), which mean another emotion in every data set: {say} names them"]
    return [
        f"no class is a known expression ({shown}): are the folders persons? "
        "data.classes or data.emotions says what they mean"
    ]


@dataclass(frozen=True)
class Naming:
    """How what a source says becomes the name of an emotion.

    source: as data.source; only in fer2013 do the numbers 0 to 6 mean FER2013's emotions. emotions: as data.emotions,
    from what the source says to the emotion, before any other rule.
    """

    source: str = "fer2013"
    emotions: Mapping[str, str] = field(default_factory=dict)

    def name(self, said: str) -> str | None:
        """Return the emotion's name; None for a number that FER2013 does not have."""
        word = fold(said)
        if word in (given := {fold(key): name for key, name in self.emotions.items()}):
            return emotion_named(given[word])
        if self.source == "fer2013" and word.isdecimal():
            code = _number(word)
            return EMOTIONS[code] if code < len(EMOTIONS) else None
        return emotion_named(word)

    def is_given(self, said: str) -> bool:
        """Tell whether data.emotions says what it means."""
        return fold(said) in map(fold, self.emotions)

    def unknown(self, said: str) -> str:
        """Return what there is to say of something that FER2013 does not have, or that is no name."""
        name = self.name(said)
        if self.source != "fer2013" and not (name and name.isprintable()):
            return f"{name!r:.30} can be no class (empty, or not to be shown); rename it, or name it in data.emotions"
        known = ", ".join(f"{code} {emotion}" for code, emotion in enumerate(EMOTIONS))
        seven = "7 is contempt in CK+'s tables ('data.emotions={7:contempt}'), neutral in RAF-DB, where all differ; "
        seven = seven if fold(said) == "7" else ""
        return (
            f"unknown emotion {said[:20]!r}; known are {known}; {seven}"
            "data.emotions says what others mean, data=image_folder takes another set"
        )

    def apply(self, said: Iterable[str], refuse: Callable[[str], UserError]) -> tuple[list[str], dict[str, int]]:
        """Return the emotion of each, and how many were renamed: all but capitals alone, unless two spellings meet.

        refuse: makes the error for a number that FER2013 does not have, and for what cannot be shown.

        Raises UserError for that, and for a key of data.emotions that the source does not say.
        """
        count = Counter(said := list(said))
        if strange := [key for key in self.emotions if fold(key) not in {fold(word) for word in count}]:
            shown = ", ".join(sorted(count, key=natural_key)[:12])
            raise UserError(f"data.emotions: the source says no {strange[0]!r}; it says {shown}")
        names: dict[str, str] = {}
        for word in count:
            if not (name := self.name(word)) or not name.isprintable():
                raise refuse(word)
            names[word] = name
        spellings = Counter(names.values())
        renamed = {
            f"{fit(word)} taken as {name}": count[word]
            for word, name in sorted(names.items())
            if word != name and not word.isdecimal() and (fold(word) != name or spellings[name] > 1)
        }
        renamed |= {f"{fit(word)} taken as {names[word]}": count[word] for word in sorted(names) if self.is_given(word)}
        return [names[word] for word in said], renamed
