"""conf/ and overrides become a config, or a readable line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_experiments.config import (
    VIEWS,
    cache_dir,
    config_dir,
    flatten,
    from_dict,
    mlruns_dir,
    options,
    read_yaml,
    sweeps_dir,
    to_dict,
)
from fer_experiments.config.compose import compose
from fer_experiments.config.overrides import NO_GROUPS, split_multirun
from fer_experiments.errors import UserError

SWEEPS = sorted(path.stem for path in sweeps_dir().glob("*.yaml"))


def test_defaults_are_the_papers_task_on_inception_resnet_v2():
    config = compose([])
    assert (config.data.name, config.backbone.name, config.head.name) == ("fer2013", "inception_resnet_v2", "paper")
    assert config.data.classes == {"negative": ["angry", "fear", "sad"], "positive": ["happy"]}


def test_scientific_notation_is_a_number():
    assert compose(["head.l2=1e-4"]).head.l2 == 1e-4


def test_classes_are_replaced_and_not_merged():
    config = compose(["data.classes={calm:[neutral],loud:[surprise,happy]}"])
    assert config.data.classes == {"calm": ["neutral"], "loud": ["surprise", "happy"]}


def test_classes_of_an_experiment_file_replace_the_groups(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("data:\n  classes: {calm: [neutral], loud: [surprise]}\n")
    assert compose([f"experiment={path}"]).data.classes == {"calm": ["neutral"], "loud": ["surprise"]}


def test_labels_of_data_emotions_are_text_replaced_and_not_merged(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("data:\n  emotions: {1: surprise, '2': fear, false: sad}\n")
    config = compose([f"experiment={path}"])
    assert config.data.emotions == {"1": "surprise", "2": "fear", "False": "sad"}
    assert compose([f"experiment={path}", "data.emotions={4: happy}"]).data.emotions == {"4": "happy"}
    assert compose([f"experiment={path}", "data.emotions=null"]).data.emotions is None
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert flatten(to_dict(config))["data.emotions"] == config.data.emotions


def test_an_experiment_file_may_set_any_section(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("features: {views: [original, flip]}\npaths: {cache: elsewhere}\ntraining: {epochs: 3}\n")
    config = compose([f"experiment={path}"])
    assert (config.features.views, config.paths.cache) == (["original", "flip"], "elsewhere")
    assert compose([f"experiment={path}", "features.views=[original]"]).features.views == ["original"]


def test_a_space_on_the_command_line_takes_the_place_of_the_file_s():
    config = compose(["sweep=quick", "sweep.space={head.l2:{type:choice,values:[0.1,0.2]}}"])
    assert config.sweep is not None and list(config.sweep.space) == ["head.l2"]
    emptied = compose(["sweep=quick", "sweep.space={}"])
    assert emptied.sweep is not None and emptied.sweep.space == {}


def test_command_line_beats_a_sweep_file():
    config = compose(["sweep=quick", "sweep.max_trials=3", "head.dropout=0.1"])
    assert config.sweep is not None
    assert (config.sweep.name, config.sweep.max_trials, config.head.dropout) == ("quick", 3, 0.1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["head.zz=1"], "head.zz: no such config path"),
        (["trainin.epochs=1"], "did you mean training.epochs"),
        (["gate=stict"], f"gate=stict: no such config; choose one of {', '.join(options('gate'))}"),
        (["gate.alpha=1"], "gate.alpha: no gate is chosen; say gate=<name>"),
        (["head=papr"], f"head=papr: no such config; choose one of {', '.join(options('head'))}"),
        (["head.l2=abc"], "head.l2: Value 'abc'"),
        (["training.epochs=0"], "training.epochs=0: must be greater than 0"),
        (["training.optimizer=lion"], "training.optimizer=lion: choose one of adam, adamw, sgd"),
        (["head.dropout=1.0"], "head.dropout=1.0: must be"),
        (["head.l2=-1"], "head.l2=-1.0: must not be negative"),
        (["features.views=[upside_down]"], f"a list out of {', '.join(VIEWS)}, each once, original among them"),
        (["sweep=nope"], f"sweep=nope: no such file; choose one of {', '.join(SWEEPS)}"),
        (["experiment=nope"], "experiment=nope: no such file; choose one of"),
        (["compute.name=cloud"], f"compute.name=cloud: no such compute; choose one of {', '.join(options('compute'))}"),
        (["sweep.max_trials=3"], "sweep.max_trials: no sweep is chosen; say sweep=<name>"),
        (["data.emotions=[1]"], "data.emotions=[1]: must say what labels mean, as {1: surprise, 2: fear}"),
        (["data.emotions={1:[sad]}"], "data.emotions={'1': ['sad']}: must say what labels mean"),
        (["head.l2"], "head.l2: an override is <key>=<value>; did you mean head.l2"),
        (["+note=x"], "note: no such config path"),
        (["++a.b=1"], "a.b: no such config path"),
        (["+head.foo=1"], "head.foo: no such config path"),
        (["+sweep=quick"], "+sweep=quick: say sweep=quick"),
        (["~head"], "~head: nothing can be taken out of a config"),
        (["~training.epochs"], "~training.epochs: nothing can be taken out"),
        (["hydra.run.dir=x"], "hydra.run.dir=x: Hydra's own settings have no effect here"),
        (["hydra/launcher=joblib"], "hydra/launcher=joblib: Hydra's own settings"),
        (["data@training=demo"], "data@training: no such config path"),
        (["head=paper,pooled"], "head=paper,pooled: several values: `fer train -m`"),
        (["=x"], "=x: an override is <key>=<value>"),
        (["data.task=a(b"], "a text is quoted twice, once for the shell: 'data.task=\"a(b\"'"),
        (["head="], "head=: must not be empty"),
        (["data.path="], "data.path=: must not be empty"),
        (["paths.mlruns="], "paths.mlruns=: must not be empty"),
        (["paths.cache=''"], "paths.cache=: must not be empty"),
        (["backbone.weights="], "backbone.weights=: must not be empty"),
        (["pretrain=pocket", "pretrain.output="], "pretrain.output=: must not be empty"),
        (["pretrain.output=x"], "pretrain.output: no pretrain is chosen; say pretrain=<name>"),
        (["experiment="], "experiment=: must not be empty"),
        (
            ["data.classes=sad:[sad]", "data.classes=other:[happy", "data.classes=neutral]"],
            "the shell has taken the braces apart; quote it: 'data.classes={sad:[sad],other:[happy,neutral]}'",
        ),
        (["backbone.scaling=mean:1", "backbone.scaling=scale:2"], "quote it: 'backbone.scaling={mean:1,scale:2}'"),
        (["gate=default", "gate.recall.sad=1"], "gate.recall.sad: add a key to it with +gate.recall.<name>=<number>"),
    ],
)
def test_a_mistake_is_one_readable_line(overrides: list[str], message: str):
    with pytest.raises(UserError) as caught:
        compose(overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_yaml_names_the_file(tmp_path: Path):
    path = tmp_path / "bad.yaml"
    path.write_text("data: [1,\n")
    with pytest.raises(UserError, match=r"bad\.yaml"):
        compose([f"sweep={path}"])


def test_multirun_expands_every_combination():
    jobs = split_multirun(["head=paper,pooled", "training.seed=range(0,2)"])
    assert [sorted(job) for job in jobs] == [
        ["head=paper", "training.seed=0"],
        ["head=paper", "training.seed=1"],
        ["head=pooled", "training.seed=0"],
        ["head=pooled", "training.seed=1"],
    ]


GROUPS = sorted(
    path.name for path in config_dir().iterdir() if path.is_dir() and path.name not in ("experiment", *NO_GROUPS)
)


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_composes_and_knows_its_name(group: str):
    for path in sorted((config_dir() / group).glob("*.yaml")):
        section = to_dict(compose([f"{group}={path.stem}"]))[group]
        assert section.get("name", path.stem) == path.stem


@pytest.mark.parametrize("folder", ["experiment", "sweep"])
def test_every_experiment_and_sweep_composes(folder: str):
    where = sweeps_dir() if folder == "sweep" else config_dir() / "experiment"
    for path in sorted(where.glob("*.yaml")):
        compose([f"{folder}={path.stem}"])


NAMES = [
    *["a=b", "a(b", "a[b]", "a{b}", "a'b", 'a"b', "a#b", "a&b", "a;b", "a!b", "a,b", "a:b", "a b", " a", "a ", "a%20b"],
    *["$a", "a$", "a\\b", "~a", "gesichter-äöü", "表情", "null,", "a?b", "a*b", "a|b", "a<b>", "-a", "+a", "'a"],
    *["a\nb", "1e3"],
]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_taken_as_it_is_typed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("a", "elsewhere")
    folder = tmp_path / name
    folder.mkdir()
    config = compose(
        ["data=image_folder", f"data.path={folder}", f"paths.mlruns={folder}", f"backbone.weights={folder}"]
    )
    assert (config.data.path, config.backbone.weights, mlruns_dir(config)) == (
        str(folder),
        str(folder),
        folder.resolve(),
    )
    experiment = folder / f"{name}.yaml"
    experiment.write_text("training: {epochs: 3}\n", encoding="utf-8")
    assert compose([f"experiment={experiment}"]).training.epochs == 3
    assert split_multirun([f"data.path={folder}", "head=conv,paper"])[1] == [f"data.path={folder}", "head=paper"]


ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0${"), min_size=1)


@settings(max_examples=30)  # of four texts each: composing takes most of the time
@given(st.tuples(ANY, ANY, ANY, ANY))
def test_any_text_but_null_or_quoted_is_a_path(texts: tuple[str, ...]):
    keys = ("data.path", "backbone.weights", "paths.mlruns", "paths.cache")
    config = compose([f"{key}=./{text}" for key, text in zip(keys, texts, strict=True)])
    found = (config.data.path, config.backbone.weights, config.paths.mlruns, config.paths.cache)
    assert found == tuple(f"./{text}" for text in texts)


def test_a_path_may_be_quoted_for_hydra():
    config = compose(["data.path='a b'", 'paths.cache="c, d"', "backbone.weights=null"])
    assert (config.data.path, config.paths.cache, config.backbone.weights) == ("a b", "c, d", None)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = compose(["paths.mlruns=~/runs", "paths.cache=~/cache"])
    assert (mlruns_dir(config), cache_dir(config)) == (tmp_path / "runs", tmp_path / "cache")
    (tmp_path / "mine.yaml").write_text("training: {epochs: 3}\n")
    assert compose(["experiment=~/mine.yaml"]).training.epochs == 3


def test_a_multirun_over_paths_parts_them_at_commas():
    assert split_multirun(["data.path=a (1).zip,b=c.zip"]) == [["data.path=a (1).zip"], ["data.path=b=c.zip"]]
    assert split_multirun(["data.path='a,b'"]) == [["data.path='a,b'"]]


def test_a_note_is_any_text():
    config = compose(["promote=default", "promote.note=two views, mirrored (see #3): {better}"])
    assert config.promote is not None and config.promote.note == "two views, mirrored (see #3): {better}"


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
TEXTS = "promote:\n  note: ${data.task}\n" + "".join(f"k{n}: {f'${{k{n - 1}}}' * 10}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "its aliases make it so"),
        (MERGES, "its aliases make it so"),
        ("a: &a [*a]", "its aliases make it so"),
        (TEXTS, "more than 16 interpolations"),
        ("data: " + "[" * 5000, "nested too deeply"),
        ("data: " + "{a: " * 5000, "nested too deeply"),
        ("# " + "x" * 300_000, "larger than any config"),
    ],
)
def test_a_yaml_that_would_be_without_end_is_refused(tmp_path: Path, text: str, reason: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    for group in ("experiment", "sweep"):
        with pytest.raises(UserError, match=f"mine.yaml: not readable as YAML: .*{reason}"):
            compose([f"{group}={path}"])
    with pytest.raises(UserError, match="a recorded config: not readable as YAML"):
        read_yaml(text)


def test_aliases_of_a_reasonable_length_are_read(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("data:\n  classes: {calm: &a [neutral], loud: [surprise]}\nfeatures: {views: [original]}\n")
    assert compose([f"experiment={path}"]).data.classes == {"calm": ["neutral"], "loud": ["surprise"]}


@pytest.mark.parametrize("choice", ["../head/paper", "../../../../tmp/x", ".."])
def test_no_group_is_chosen_outside_of_conf(tmp_path: Path, choice: str):
    with pytest.raises(UserError, match="no such config; choose one of"):
        compose([f"backbone={choice}"])
    path = tmp_path / "mine.yaml"
    path.write_text(f"defaults:\n  - override /backbone: {choice}\n")
    with pytest.raises(UserError, match=r"mine.yaml: its defaults lead out of conf/"):
        compose([f"sweep={path}"])


@pytest.mark.parametrize("override", ["paths.mlruns='x${'", "paths.mlruns='${a b}'", "head.name='x${:'"])
def test_signs_that_begin_no_reference_are_named_with_the_remedy(override: str):
    with pytest.raises(UserError, match=r"\$\{ begins a reference, and this is none; .* write \\\$\{$"):
        compose([override])
