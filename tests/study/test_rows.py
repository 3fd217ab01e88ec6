"""Streams of rows, of which the newest may still be written: what is damaged in them is not believed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vaehpc.study.streams import IDENTITY, read_stream, write_rows

ROWS = pa.table({"step": np.arange(9), "radius": np.arange(9) / 2, "image": pa.array([None, 3, 4] * 3)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Six of the rows in two batches."""
    schema = ROWS.schema.with_metadata({IDENTITY: "own"})
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        write_rows(stream, ROWS.slice(2, 3))
        write_rows(stream, ROWS.slice(5, 3))
    return tmp_path / "rows.arrow"


def read(path: Path, identity: str | None = None) -> list[dict[str, object]]:
    rows = read_stream(path, identity=identity)
    return [] if rows is None else rows.to_pylist()


def test_rows_come_back_but_not_those_of_another_run(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = ROWS.slice(2, 6).to_pylist()
    assert read(path) == read(path, "own") == whole
    assert read(path, "other") == []
    assert f"{path} is cut off or damaged: it is of another run" in caplog.text


def test_rows_that_were_there_are_missed(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.unlink()
    assert read(path) == []
    assert caplog.text == ""
    assert read_stream(path, "0" * 64) is None
    assert f"{path} is not there any more" in caplog.text


def test_of_a_file_with_a_flipped_bit_whole_batches_are_left(path: Path) -> None:
    content, found = path.read_bytes(), set()
    whole = read(path)
    for place in range(0, len(content), 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        rows = read(path)
        assert rows == whole[: len(rows)]
        found.add(len(rows))
    assert found == {0, 3, 6}
