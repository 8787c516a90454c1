"""Folders of results appear whole or not at all."""

import pytest

from tfxformer.files import replacing_folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_appears_at_the_end(tmp_path):
    with replacing_folder(tmp_path / "a" / "results") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x").write_text("1")
        assert not (tmp_path / "a" / "results").exists()
    assert contents(tmp_path) == {"a/results/sub/x": "1"}


def test_an_old_result_stays_until_the_new_one_is_complete_and_strangers_stay(tmp_path):
    old = tmp_path / "results"
    old.mkdir()
    (old / "x").write_text("old")
    (old / "notes").write_text("mine")
    with replacing_folder(old) as folder:
        (folder / "x").write_text("new")
        (folder / "y").mkdir()
        (folder / "y" / "z").write_text("new")
        assert (old / "x").read_text() == "old"
    assert contents(tmp_path) == {"results/x": "new", "results/notes": "mine", "results/y/z": "new"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_or_interrupt_changes_nothing(tmp_path, error):
    old = tmp_path / "results"
    old.mkdir()
    (old / "x").write_text("old")
    with pytest.raises(error), replacing_folder(old) as folder:
        (folder / "x").write_text("half")
        raise error
    assert contents(tmp_path) == {"results/x": "old"}


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"), replacing_folder(tmp_path / "results"):
        pass
