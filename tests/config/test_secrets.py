"""What the environment says is recorded nowhere, and no record asks it of whoever reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_experiments.config import (
    flatten,
    from_dict,
    read_yaml,
    recorded,
    to_dict,
    to_yaml,
    with_values,
    without_password,
)
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError

RESOLVERS = [
    "${oc.env:SECRET}", "${oc.env:SECRET,x}", "a-${oc.env:SECRET}-b", "${oc.decode:${oc.env:SECRET}}",
    "${ oc.env:SECRET}",
    "${tracking.uri}", "${tracking.credentials}", "${oc.select:tracking.uri}", "${hydra:runtime.cwd}",
]  # fmt: skip


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")


@pytest.mark.parametrize("text", RESOLVERS)
@pytest.mark.parametrize(
    "yaml",
    [
        "data: {{task: '{}'}}",
        "data: {{classes: {{a: ['{}'], b: [happy]}}}}",
        "paths: {{cache: '{}'}}",
        "data: {{path: '{}'}}",
        "backbone: {{weights: '{}'}}",
    ],
)
def test_an_experiment_may_not_take_its_values_from_the_environment(tmp_path: Path, yaml: str, text: str):
    (tmp_path / "e.yaml").write_text(yaml.format(text))
    with pytest.raises(UserError) as refused:
        compose([f"experiment={tmp_path}/e.yaml"])
    assert "hunter2" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "${tracking.uri}"])
def test_nor_may_a_sweep(tmp_path: Path, text: str):
    entry = f"head.activation: {{type: choice, values: [relu, '{text}']}}"
    (tmp_path / "s.yaml").write_text(f"sweep:\n  max_trials: 2\n  space:\n    {entry}\n")
    with pytest.raises(UserError, match=r"sweep\.space.*only tracking may take"):
        compose([f"sweep={tmp_path}/s.yaml"])


@pytest.mark.parametrize("override", ["data.task=${oc.env:SECRET}", "+data.classes.a=[${oc.env:SECRET}]"])
def test_nor_may_an_override(override: str):
    with pytest.raises(UserError) as refused:
        compose([override])
    assert "hunter2" not in str(refused.value)


def test_tracking_takes_its_address_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FER_TRACKING", "http://me:hunter2@host:5000")
    config = compose(["tracking=server"])
    assert config.tracking.uri == "http://me:hunter2@host:5000"
    assert recorded(config)["tracking"]["uri"] == "http://me:***@host:5000"
    assert "hunter2" not in to_yaml(recorded(config)) + str(flatten(recorded(config)))


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg2://me:hun/t?e#r2@host:5432/db", "postgresql+psycopg2://me:***@host:5432/db"),
        ("http://me:hun@ter2@host:5000", "http://me:***@host:5000"),
        ("postgresql://me:hun[ter2@host/db", "postgresql://me:***@host/db"),
        (
            "postgresql://host/db?user=me&password=hunter2&sslmode=require",
            "postgresql://host/db?user=me&password=***&sslmode=require",
        ),
        ("mysql://host/db?passwd=hunter2", "mysql://host/db?passwd=***"),
        ("mysql://host/db?PASSWORD=hun#ter2&pwd=hunter2&x=1", "mysql://host/db?PASSWORD=***&pwd=***&x=1"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dhunter2", "mssql+pyodbc:///?odbc_connect=***"),
        ("postgresql://me@corp:hunter2@host/db", "postgresql://me@corp:***@host/db"),
        ("http://me@corp:hunter2@host:5000", "http://me@corp:***@host:5000"),
        ("postgresql://me:hun/t@er2@host/db?x=a@b", "postgresql://me:***@host/db?x=a@b"),
        ("HTTPS://me:hun/ter2@host:5000", "HTTPS://me:***@host:5000"),
        (
            "'tracking.uri=\"postgresql://host/db?password=hunter2\"'",
            "'tracking.uri=\"postgresql://host/db?password=***\"'",
        ),
        ("tracking.uri=postgresql://me:hunter2@host/db", "tracking.uri=postgresql://me:***@host/db"),
        *[
            (plain, plain)
            for plain in (
                *["http://host:5000", "postgresql://me@host/db", "sqlite:////data/a:b@c/mlflow.db"],
                *["http://host:8080/~me@corp/mlflow", "postgresql://host:5432/db?x=1", "sqlite:///C:/a@b/mlflow.db"],
            )
        ],
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str):
    assert without_password(address) == shown


def test_a_key_may_stand_for_another(tmp_path: Path):
    (tmp_path / "e.yaml").write_text("paths: {cache: '${paths.mlruns}/cache'}")
    assert compose([f"experiment={tmp_path}/e.yaml", "paths.mlruns=/m"]).paths.cache == "/m/cache"


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "a\\${oc.env:SECRET}", "$SECRET", "${x}", "\\\\${x}"])
def test_a_record_is_read_as_it_stands(text: str):
    """Made before, or by another user."""
    container = to_dict(compose(["data=demo"]))
    container["data"]["task"] = text
    for config in (from_dict(container), from_dict(read_yaml(to_yaml(container)))):
        assert config.data.task == text
    assert with_values(compose(["data=demo"]), {"data.task": text}).data.task == text


@pytest.mark.parametrize("folder", ["/a ${b} c", "/a ${b", "/${paths.mlrun}"])
def test_a_folder_whose_name_begins_a_reference_is_told_how_it_is_written(folder: str):
    with pytest.raises(UserError, match=r"^paths\.mlruns: .*; where \$\{ stands for itself, write \\\$\{$"):
        compose([f"paths.mlruns={folder}"])
    assert compose([f"paths.mlruns={folder}".replace("$", "\\$")]).paths.mlruns == folder


@pytest.mark.parametrize("text", ["x${", "${a b}", "${}", "\\${x", "${oc.env:HOME}", "a: ${ #"])
def test_a_record_keeps_signs_that_begin_no_reference(text: str):
    container = {"paths": {"mlruns": text}, "values": [text, {"a": text}]}
    assert read_yaml(to_yaml(container)) == container
