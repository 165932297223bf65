"""What is typed beside a file of experiment=, and what no YAML or value is."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from fer_experiments.config import cache_dir, config_dir, mlruns_dir, recorded, to_dict, to_yaml, with_values
from fer_experiments.config.commands import train_command
from fer_experiments.config.compose import compose
from fer_experiments.config.overrides import check_named, split_multirun
from fer_experiments.errors import UserError

TOO_LONG = "x" * 300


@pytest.fixture
def record(tmp_path: Path) -> str:
    """What a run records, as an override."""
    recorded = to_dict(compose(["data=demo", "backbone=pocket", "head=linear", "training.epochs=3"]))
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml({name: section for name, section in recorded.items() if section is not None}))
    return f"experiment={path}"


@pytest.mark.parametrize(
    "typed", ["data=fer2013_seven", "backbone=facenet", "head=conv", "training=finetune", "data=fer2013 head=pooled"]
)
def test_a_group_that_is_typed_holds_against_a_record(record: str, typed: str) -> None:
    groups = typed.split()
    chosen, got, before = (to_dict(compose(words)) for words in (groups, [record, *groups], [record]))
    sections = {group.partition("=")[0] for group in groups}
    for name, section in got.items():
        assert section == (chosen if name in sections else before)[name]


def test_what_a_file_changes_of_a_group_holds_for_another_that_is_typed(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("head: {l2: 0.25}\n")
    head = compose([f"experiment={tmp_path}/mine.yaml", "head=pooled"]).head
    assert (head.name, head.l2) == ("pooled", 0.25)


@pytest.mark.parametrize("file", ["defaults: [override /data: demo]\n", "data: {name: demo, source: demo}\n"])
def test_a_group_that_a_command_implies_yields_to_a_file_and_to_what_is_typed(file: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(file)
    implied = ["data=fer2013_seven"]
    assert compose([f"experiment={tmp_path}/mine.yaml"], implied).data.source == "demo"
    assert compose([], implied).data.name == "fer2013_seven"
    assert compose(["data=demo"], implied).data.name == "demo"


def test_a_sweep_that_is_implied_is_there_beside_what_is_typed() -> None:
    config = compose(["head=linear", "sweep.max_trials=2"], ["sweep=quick"])
    assert config.sweep is not None and (config.sweep.name, config.sweep.max_trials) == ("quick", 2)
    assert (config.data.name, config.head.name) == ("demo", "linear")


def test_a_key_that_is_typed_holds_in_a_whole(record: str) -> None:
    whole = "data.classes={a:[happy],b:[sad]}"
    assert compose(["data=demo", whole, "+data.classes.c=[fear]"]).data.classes == {
        "a": ["happy"],
        "b": ["sad"],
        "c": ["fear"],
    }
    assert compose(["data=demo", whole, "data.classes.a=[fear]"]).data.classes == {"a": ["fear"], "b": ["sad"]}
    with pytest.raises(
        UserError, match=r"data\.classes\.d: no such config path; a new one is \+data\.classes\.d=\[sad\]"
    ):
        compose(["data=demo", whole, "data.classes.d=[sad]"])
    assert compose([record, "data.classes.negative=[angry]"]).data.classes["negative"] == ["angry"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "floors", "recall"),
    [
        ("gate.floors={}", {}, {"every": 0.3}),
        ("gate.recall={happy:0.5}", {"roc_auc": 0.8}, {"happy": 0.5}),
        ("gate.floors={accuracy:0.9} +gate.floors.f1=0.8", {"accuracy": 0.9, "f1": 0.8}, {"every": 0.3}),
        ("+gate.floors.f1=0.8 gate.recall.every=0.1", {"roc_auc": 0.8, "f1": 0.8}, {"every": 0.1}),
    ],
)
def test_limits_of_a_gate_that_are_typed_as_a_whole_are_all_of_them(
    words: str, floors: dict[str, float], recall: dict[str, float]
) -> None:
    gate = compose(["promote=default", "gate=default", *words.split()]).gate
    assert gate is not None and (gate.floors, gate.recall) == (floors, recall)


@pytest.mark.parametrize("group", ["data", "head", "training", "compute", "gate", "promote"])
@pytest.mark.parametrize("value", ["null", "1", "true", "[1]", "[null]", "1.5", "{a:1}"])
def test_what_is_no_name_chooses_nothing(group: str, value: str) -> None:
    with pytest.raises(UserError, match=f"^{group}=.*: no such config; choose one of "):
        compose([f"{group}={value}"])


def test_several_of_a_group_are_for_a_multirun() -> None:
    with pytest.raises(UserError, match=r"^head=paper,pooled: several values: `fer train -m` runs one after another$"):
        compose(["head=paper,pooled"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experiment=null", "leave it out"),
        ("features.views=[[original]]", "each must be one value, no list"),
        ("features.views=[{a:1},original]", "each must be one value, no list"),
        ("data.demo_size=99999999999999999999999999", "is larger than any number"),
        ("head.dense_widths=[99999999999999999999999]", "each is larger than any number"),
        ("head.l2=1e300", "is larger than any number"),
        ("backbone.seen=[faces]", "faces is no part of a source; say one of faces/Training, .*, faces/$"),
        ("backbone.seen=[fer2013/Train]", "fer2013/Train is no part of a source; say one of fer2013/Training, "),
        ("backbone.seen=[/Training]", "/Training is no part of a source; say one of demo/Training, "),
        ("backbone.seen=[Demo/Training]", "Demo is demo but for case; write it so"),
        ("backbone.seen=[FER2013/Training]", "FER2013 is fer2013 but for case; write it so"),
        ("data.fold=1", "data.split=official has no folds"),
        ("experiment=~nosuchuser/x.yaml", "is no path"),
        (f"sweep={TOO_LONG}.yaml", "is no path"),
        (f"sweep={TOO_LONG}", "no such file"),
    ],
)
def test_a_value_that_none_could_use_is_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        compose(["data=demo", override])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compute.workers=4", "compute.workers: compute=inline has no use for it; .* compute=processes or compute=ray"),
        ("compute=processes compute.address=h:1", "compute.address: compute=processes has no use .* compute=ray$"),
        (
            "sweep=finetune compute.workers=4 sweep.space={training.from_features:{type:bool}}",
            "compute.workers: compute=inline has no use for it",
        ),
        ("gate=default gate.metric=f1", "gate.metric: gate.compare=mcnemar has no use for it; say gate.compare=boot"),
        ("gate=default gate.compare=none gate.metric=f1", "gate.metric: gate.compare=none has no use for it"),
        ("gate=default gate.compare=none gate.alpha=0.01", "gate.alpha: gate.compare=none compares with no champion"),
        ("gate=default gate.compare=none gate.worse={every:0.1}", "gate.worse: gate.compare=none compares with no"),
    ],
)
def test_what_nobody_uses_is_refused(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(words.split())


@pytest.mark.parametrize(
    "words",
    [
        *("compute.workers=null compute.gpus_per_trial=0", "compute=ray compute.address=h:1 compute.workers=2"),
        *("sweep=quick sweep.max_epochs=5", "compute.name=inline"),  # another sweep, begun before, may be meant
        *("gate=default gate.metric=f1 gate.compare=bootstrap", "gate=default gate.alpha=0.01"),
        *("gate=default gate.compare=none", "gate=default gate.compare=none gate.worse={}"),
    ],
)
def test_what_somebody_uses_is_taken(words: str) -> None:
    compose(words.split())


@pytest.mark.parametrize("folder", ["~nosuchuser/m", TOO_LONG])
def test_a_folder_that_cannot_be_is_one_line(folder: str) -> None:
    config = compose(["data=demo", f"paths.mlruns={folder}", f"paths.cache={folder}"])
    for key, where in (("mlruns", mlruns_dir), ("cache", cache_dir)):
        with pytest.raises(UserError, match=rf"^paths\.{key}={folder}: is no path"):
            where(config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("head: {foo: 1}", r"head\.foo: no such config path"),
        ("data: null", "data: field 'data' is not Optional"),
        ("data: {classes: {a: happy}}", r"data\.classes\.a: Value 'happy'"),
        ("data: {classes: {null: [sad]}}", r"data\.classes: Incompatible key type"),
        ("head: {dense_widths: [1.5]}", r"head\.dense_widths\[0\]: Value '1\.5'"),
        ("defaults: 5", "defaults: must be a list"),
        ("defaults:\n  override /data: demo", "defaults: must be a list"),
        ("null: 1", "Incompatible key type"),
        ("defaults: [override /nosuch: demo]", "Could not override 'nosuch'"),
        ("data: {clean: !!set {a, b}}", r"data\.clean: Value 'set'"),
    ],
)
def test_a_mistake_in_a_file_names_it(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text + "\n")
    with pytest.raises(UserError, match=f"^{path}: {said}") as refused:
        compose([f"experiment={path}"])
    assert "\n" not in str(refused.value)


NAMES = ["愤怒", "é", "a'b", 'a"b', "a#b", "a;b", "a&b", "a!b", "~a", "1", "1e5", "true", "null", "a b"]


@pytest.mark.parametrize("key", NAMES)
def test_names_in_any_script_and_of_any_signs_are_typed_and_printed(key: str) -> None:
    base = compose(["data=image_folder", "data.path=/x"])
    for path, value in (("data.classes", {key: ["happy"], "z": [key]}), ("data.emotions", {key: "happy", "2": key})):
        config = with_values(base, {path: value})
        _, _, *words = shlex.split(train_command(recorded(config)))
        again = compose(words)
        assert getattr(again.data, path.partition(".")[2]) == value
        assert split_multirun(words) == [words]


def test_braces_need_no_blanks_and_numbers_are_names() -> None:
    assert compose(["data.emotions={愤怒:angry,2:fear}"]).data.emotions == {"愤怒": "angry", "2": "fear"}
    assert compose(["data.classes={1:[happy],2:[sad]}"]).data.classes == {"1": ["happy"], "2": ["sad"]}


@pytest.mark.parametrize("key", ["data.classes", "data.emotions"])
@pytest.mark.parametrize("text", ["愤怒", "{a:[happy", "{愤怒:}"])
def test_what_says_no_keys_and_values_is_refused_with_what_does(key: str, text: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}=.*: says no keys and values; say it as '(.*)'$") as refused:
        compose([f"{key}={text}"])
    compose([str(refused.value).split("'")[1]])


def test_a_yaml_of_conf_that_lacks_what_it_must_say_is_named_with_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    conf = shutil.copytree(config_dir(), tmp_path / "conf")
    (conf / "data" / "mine.yaml").write_text("name: mine\nsource: image_folder\npath: /x\n")
    (tmp_path / "mine.yaml").write_text("defaults: [override /data: mine]\n")
    monkeypatch.setattr("fer_experiments.config.compose.config_dir", lambda: conf)
    with pytest.raises(UserError, match=r"^conf/data/mine\.yaml: task is missing; add it$"):
        compose(["head.l2=0.1", "data=mine"])
    with pytest.raises(UserError, match=r"^the YAML of data: task is missing; add it$"):
        compose([f"experiment={tmp_path}/mine.yaml"])


@pytest.mark.parametrize("word", ["features.views=flip", "head.dense_widths=64", "backbone.layers=block5_pool"])
def test_one_value_where_a_list_belongs_is_told_as_a_list_of_it(word: str) -> None:
    key, _, value = word.partition("=")
    with pytest.raises(UserError) as caught:
        compose(["training.epochs=2", word])
    assert str(caught.value) == f"{word}: takes a list; say '{key}=[{value}]'"


def test_what_looks_like_an_argument_of_a_commands_own_is_refused_and_what_is_a_key_is_not() -> None:
    own = ("version", "host", "port", "allowed_hosts")
    with pytest.raises(UserError, match=r"^prot=1: no such option; did you mean port\?$"):
        check_named(["data=demo", "prot=1"], own)
    passing = ["data=demo", "+gate.floors.x=1", "paths.mlruns=port", "head.l3=1", "experiment=x.yaml", "sweep=quick"]
    check_named(passing, own)
    check_named(["prot=1"], ())
