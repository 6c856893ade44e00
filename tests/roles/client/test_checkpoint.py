from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.client import checkpoint


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "checkpoint"
    monkeypatch.setenv("DTS_CHECKPOINT_FILE", str(path))
    return path


def test_what_was_saved_is_loaded(file: Path) -> None:
    assert checkpoint.load(default=0) == 0
    checkpoint.save({"page": 7})
    assert checkpoint.load() == {"page": 7}
    assert file.read_bytes() == b'{"page":7}'


def test_a_save_replaces_the_file_and_leaves_nothing_beside_it(file: Path) -> None:
    checkpoint.save_bytes(b"one")
    before = file.stat().st_ino
    checkpoint.save_bytes(b"two")
    assert checkpoint.load_bytes() == b"two"
    assert file.stat().st_ino != before
    assert list(file.parent.iterdir()) == [file]


def test_too_large_a_checkpoint_is_refused_and_the_last_one_stays(file: Path) -> None:
    checkpoint.save_bytes(b"good")
    with pytest.raises(ValueError, match="1048576 bytes at most"):
        checkpoint.save_bytes(b"x" * (checkpoint.LARGEST + 1))
    assert file.read_bytes() == b"good"


def test_outside_of_a_task_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DTS_CHECKPOINT_FILE", raising=False)
    checkpoint.save([1])
    assert checkpoint.load(default="start") == "start"
