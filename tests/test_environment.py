import os
import subprocess

import numpy as np
import pytest

from fer_experiments import environment


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "checkout é"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "code.py").write_text("a = 1\n")
    (root / ".gitignore").write_text("ignored.py\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    return root


def git(root, *arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True)


def test_a_clean_checkout_is_its_commit(repository):
    (repository / "ignored.py").write_text("")
    state = environment.git_state(repository)
    assert len(state.commit) == 40
    assert (state.dirty, state.diff) == (False, "")


def test_uncommitted_changes_and_new_files_are_a_patch_that_applies(repository):
    (repository / "code.py").write_text("a = 2\n")
    (repository / "new é.yaml").write_text("b: 3\n")
    (repository / "picture.png").write_bytes(bytes(range(256)))
    state = environment.git_state(repository)
    assert state.dirty
    assert "?? picture.png" in state.diff
    (repository / "code.py").write_text("a = 1\n")
    (repository / "new é.yaml").unlink()
    (repository / "picture.png").unlink()
    (repository.parent / "git.diff").write_text(state.diff)
    git(repository, "apply", "../git.diff")
    assert (repository / "code.py").read_text() == "a = 2\n"
    assert (repository / "new é.yaml").read_text() == "b: 3\n"


def test_changed_binary_files_are_in_a_patch_that_applies_after_the_code(repository):
    (repository / "a.npz").write_bytes(bytes(range(256)))
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "binary")
    (repository / "a.npz").write_bytes(bytes(range(255, -1, -1)))
    (repository / "code.py").write_text("a = 2\n")
    (repository / "new.py").write_text("b = 2\n")
    diff = environment.git_state(repository).diff
    assert diff.index("+a = 2") < diff.index("+b = 2") < diff.index("GIT binary patch")
    git(repository, "checkout", "--quiet", "--", ".")
    (repository / "new.py").unlink()
    (repository.parent / "git.diff").write_text(diff)
    git(repository, "apply", "../git.diff")
    assert (repository / "a.npz").read_bytes() == bytes(range(255, -1, -1))
    assert (repository / "code.py").read_text() == "a = 2\n" and (repository / "new.py").exists()


def wrap(tmp_path, monkeypatch, program, script):
    """Puts a program before the real one of its name."""
    (folder := tmp_path / "first").mkdir()
    (folder / program).write_text(f'#!/bin/sh\n{script}\nPATH={os.environ["PATH"]}; exec {program} "$@"\n')
    (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_status_that_git_cannot_tell_is_not_a_clean_one(repository, tmp_path, monkeypatch):
    (repository / "code.py").write_text("a = 2\n")
    wrap(tmp_path, monkeypatch, "git", """case "$*" in *'status --porcelain'*) exit 128;; esac""")
    state = environment.git_state(repository)
    assert (len(state.commit), state.dirty) == (40, None)


def test_a_diff_that_git_cannot_make_is_named_in_it(repository, tmp_path, monkeypatch):
    (repository / "code.py").write_text("a = 2\n")
    (repository / "new.py").write_text("b = 2\n")
    wrap(tmp_path, monkeypatch, "git", 'case "$*" in *HEAD*.py*) exit 128;; esac')
    state = environment.git_state(repository)
    assert state.dirty and "# not here, as git failed: git diff HEAD -- '*.py'" in state.diff
    assert "+b = 2" in state.diff


@pytest.mark.parametrize("program", ["git", "nvidia-smi"])
def test_a_program_that_does_not_answer_is_named(repository, tmp_path, monkeypatch, program):
    wrap(tmp_path, monkeypatch, program, "exec sleep 600")
    monkeypatch.setattr(environment, "PATIENCE_S", 0.2)
    with pytest.warns(UserWarning, match=f"{program} has not answered in 0 s; what it knows is not recorded"):
        environment.git_state(repository) if program == "git" else environment.gpus()


def test_a_change_that_is_staged_counts(repository):
    (repository / "code.py").write_text("a = 4\n")
    git(repository, "add", "code.py")
    assert "+a = 4" in environment.git_state(repository).diff


def test_a_repository_before_its_first_commit_is_dirty(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("a = 1\n")
    state = environment.git_state(tmp_path)
    assert (state.commit, state.dirty) == (None, True)
    assert "+a = 1" in state.diff


def test_an_enclosing_repository_says_nothing(repository):
    (repository / "inner").mkdir()
    assert environment.git_state(repository / "inner") == environment.GitState(None, None, "")


def test_no_git_is_no_error(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment.git_state(repository) == environment.GitState(None, None, "")


def test_a_huge_diff_is_cut(repository):
    (repository / "code.py").write_text("a = 1\n" * 300_000)
    diff = environment.git_state(repository).diff
    assert diff.endswith(f"# cut at {environment.MAX_DIFF} characters\n")
    assert len(diff) < environment.MAX_DIFF + 100


def test_git_variables_of_a_hook_are_not_believed(repository, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    (other / "code.py").write_text("z = 26\n")
    git(other, "add", ".")
    git(other, "commit", "--quiet", "--message", "other")
    (repository / "new.py").write_text("b = 2\n")
    expected = environment.git_state(repository)
    environment.git_state.cache_clear()
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "status.showUntrackedFiles")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "no")
    assert environment.git_state(repository) == expected
    assert "+b = 2" in expected.diff


def test_settings_for_reading_a_diff_do_not_change_it(repository, tmp_path, monkeypatch):
    (repository / "code.py").write_text("a = 2\n")
    (repository / "new.py").write_text("b = 2\n")
    expected = environment.git_state(repository)
    environment.git_state.cache_clear()
    (tmp_path / ".gitconfig").write_text(
        "[status]\nshowUntrackedFiles = no\n[color]\nui = always\n[diff]\nnoprefix = true\nexternal = /bin/false\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.git_state(repository) == expected


def test_versions_name_every_installed_distribution():
    known = environment.versions()
    assert known["numpy"] == np.__version__
    assert {"python", "keras", "mlflow", "keras-tuner", "scikit-learn"} <= set(known)


def test_hardware_is_plain_data_about_this_machine():
    import json

    here = environment.hardware()
    assert json.loads(json.dumps(here)) == here
    assert here["cores"] >= 1
    assert here["memory_gb"] > 0
    assert set(here["cpu_features"]) <= set(environment.CPU_FEATURES)


def test_a_machine_without_nvidia_smi_has_no_gpus(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment.gpus() == []
