"""Which registered model answers, and where its files are."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fer_experiments.errors import UserError
from fer_experiments.serving import loading
from fer_experiments.tracking import Store, models


def test_the_model_is_found_by_alias_and_number_in_place(registered):
    for which in ("champion", "1"):
        version, folder = loading.find_model(registered, which)
        assert (version.name, version.number) == ("fer-demo", 1) and (folder / "MLmodel").is_file()
    assert not (Path(registered.paths.cache) / "models").exists()


@pytest.mark.parametrize(
    ("task", "which", "message"),
    [
        ("demo", "previous", r"fer-demo has no version previous; it has 1 \(champion\).*fer promote"),
        ("demo", "7", "fer-demo has no version 7"),
        ("other", "champion", "no model fer-other .*fer promote.* data=demo$"),
    ],
)
def test_missing_model_is_said_with_the_remedy(registered, task, which, message):
    with pytest.raises(UserError, match=message):
        loading.find_model(replace(registered, data=replace(registered.data, task=task, source=task)), which)


def test_without_a_store_none_is_made(registered, tmp_path):
    empty = replace(registered, paths=replace(registered.paths, mlruns=str(tmp_path / "mlruns")))
    start = r"`\S*fer sweep paths\.mlruns=\S+ paths\.cache=\S+` comes first"
    with pytest.raises(UserError, match=rf"nothing is recorded there yet; {start}"):
        loading.find_model(empty, "champion")
    assert not (tmp_path / "mlruns").exists()


def test_files_of_another_machine_are_downloaded_once_and_whole(registered, tmp_path, monkeypatch):
    here = loading.find_model(registered, "champion")[1]
    calls = []

    def download(store: Store, version: models.Version, folder: Path) -> Path:
        calls.append(folder)
        shutil.copytree(here, folder / "model")
        if len(calls) == 1:
            raise UserError("cut off")
        return folder / "model"

    monkeypatch.setattr(models, "fetch_model", download)
    remote = replace(registered, paths=replace(registered.paths, cache=str(tmp_path)))
    with pytest.raises(UserError, match="cut off"):
        loading.find_model(remote, "champion")
    assert list((tmp_path / "models").iterdir()) == []
    folders = [loading.find_model(remote, "champion")[1] for _ in range(2)]
    assert len(calls) == 2 and folders[0] == folders[1] and (folders[0] / "MLmodel").is_file()
    assert list((tmp_path / "models").iterdir()) == [folders[0]]


def test_a_copy_that_is_not_what_is_registered_is_taken_anew(registered, tmp_path, monkeypatch):
    here = loading.find_model(registered, "champion")[1]

    def download(store: Store, version: models.Version, folder: Path) -> Path:
        shutil.copytree(here, folder / "model")
        return folder / "model"

    monkeypatch.setattr(models, "fetch_model", download)
    monkeypatch.setattr(models, "is_here", lambda store, version: False)
    remote = replace(registered, paths=replace(registered.paths, cache=str(tmp_path)))
    copy = loading.find_model(remote, "champion")[1] / "artifacts" / "network.keras"
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-9])
    assert (loading.find_model(remote, "champion")[1] / "artifacts" / "network.keras").read_bytes() == whole


def test_damaged_model_is_said_in_a_line(registered, tmp_path, monkeypatch):
    version, folder = loading.find_model(registered, "champion")
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "artifacts" / "network.keras").write_bytes(b"cut")
    monkeypatch.setattr(loading, "find_model", lambda registered, which: (version, tmp_path / "model"))
    with pytest.raises(UserError, match=r"models:/fer-demo/1: .* cannot be loaded .*fer rollback") as error:
        loading.load_model(registered, "champion")
    assert "\n" not in str(error.value)
