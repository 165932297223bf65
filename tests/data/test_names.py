from __future__ import annotations

import unicodedata

import pytest

from fer_experiments.data.faces import EMOTIONS
from fer_experiments.data.names import Naming, doubts, emotion_named, natural_key, split_named
from fer_experiments.errors import UserError


def refuse(said: str) -> UserError:
    return UserError(f"no {said}")


@pytest.mark.parametrize(
    ("name", "emotion"),
    [
        *((emotion.upper(), emotion) for emotion in EMOTIONS),
        ("Anger", "angry"),
        ("Disgusted", "disgust"),
        ("fearful", "fear"),
        ("HAPPINESS", "happy"),
        ("Sadness", "sad"),
        ("surprised", "surprise"),
        (" Happy ", "happy"),
        ("Contempt", "contempt"),
        ("joy", "joy"),  # finer sets have it beside happiness
        *((name, name) for name in ("日本", "a=b", "50%", "true", "null", "1e3", "it's", "joy & fun")),
        (unicodedata.normalize("NFD", "Écœuré"), "écœuré"),  # as macOS writes it
    ],
)
def test_one_rule_gives_every_name_its_emotion(name: str, emotion: str) -> None:
    assert emotion_named(name) == emotion
    assert Naming("image_folder").name(name) == emotion


@pytest.mark.parametrize(
    ("folder", "usage"),
    [
        *((name, "Training") for name in ("train", "TRAIN", "Training", "train_set", "trainset", "FER2013Train")),
        *(
            (name, "PublicTest")
            for name in ("val", "Valid", "validation", "dev", "FER2013Valid", "public_test", "val2")
        ),
        *((name, "PrivateTest") for name in ("test", "Testing", "FER2013Test", "raf-db test", "TestImages", "FERTest")),
        *(
            (name, "")
            for name in ("happy", "contest", "latest", "strain", "interval", "1", "", "images", "日本", "set")
        ),
    ],
)
def test_a_split_is_known_by_any_spelling_and_by_no_part_of_a_word(folder: str, usage: str) -> None:
    assert split_named(folder) == usage


def test_numbers_mean_fer2013_s_emotions_in_fer2013_alone() -> None:
    assert [Naming("fer2013").name(str(code)) for code in range(8)] == [*EMOTIONS, None]
    assert Naming("rafdb").name("1") == "1"


def test_data_emotions_goes_before_every_other_rule() -> None:
    naming = Naming("fer2013", {"7": "Contempt", "0": "happiness", "Tears": "sad"})
    names, renamed = naming.apply(["7", "0", "tears", "3"], refuse)
    assert names == ["contempt", "happy", "sad", "happy"]
    assert renamed == {"7 taken as contempt": 1, "0 taken as happy": 1, "tears taken as sad": 1}


def test_a_key_of_data_emotions_that_the_source_does_not_say_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.emotions: the source says no '8'; it says 1, 2"):
        Naming("rafdb", {"1": "surprise", "8": "sad"}).apply(["1", "2"], refuse)


def test_renaming_is_counted_but_capitals_only_where_two_spellings_meet() -> None:
    said = ["Happy", "Anger", "Anger", "Contempt", "contempt"]
    names, renamed = Naming("image_folder").apply(said, refuse)
    assert names == ["happy", "angry", "angry", "contempt", "contempt"]
    assert renamed == {"Anger taken as angry": 2, "Contempt taken as contempt": 1}


def test_a_number_that_fer2013_does_not_have_is_refused_with_the_way_to_say_what_it_is() -> None:
    with pytest.raises(UserError, match="no 7"):
        Naming().apply(["7"], refuse)
    assert "data.emotions={7:contempt}" in Naming().unknown("7")


def test_classes_of_which_none_is_an_expression_are_doubted() -> None:
    assert doubts(["contempt", "af01"]) == doubts(["happy", "1"]) == []
    assert "are the folders persons?" in doubts(["af01", "af02"])[0]
    assert "'data.emotions={1:<emotion>,...}'" in doubts(["1", "2", "3"])[0]


def test_natural_order_counts() -> None:
    assert sorted(["face-10", "face-9", "Face-1", "9"], key=natural_key) == ["9", "Face-1", "face-9", "face-10"]
    assert natural_key("007") == natural_key("7")


def test_numbers_longer_than_python_reads_are_sorted_and_named() -> None:
    ones, twos, longer = "1" * 5000, "2" * 5000, "1" * 5001
    names = [f"face-{digits}" for digits in (longer, twos, ones, "9" * 4300, "10", "9")]
    assert sorted(names, key=natural_key) == names[::-1]
    assert Naming("fer2013").name(ones) is None
    assert Naming("image_folder").name(ones) == ones
