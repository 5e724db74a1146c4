import csv

import pytest

from ftexp.report.tables import format_table, write_rows


def test_csv_keeps_every_digit_and_all_columns_in_their_first_order(tmp_path):
    path = tmp_path / "metrics.csv"
    write_rows(path, [{"epoch": 1, "loss": 0.1 + 0.2, "lr": None}, {"epoch": 2, "loss": 1e-9, "note": 'a,"b"\nc'}])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "lr", "note"]
    assert float(rows[0]["loss"]) == 0.1 + 0.2
    assert rows[0]["lr"] == ""
    assert rows[1]["note"] == 'a,"b"\nc'
    assert path.read_bytes().startswith(b"epoch,loss,lr,note\n1,0.30000000000000004,,\n")


def test_bytes_of_a_file_name_that_are_no_utf_8_are_written_as_escapes(tmp_path):
    write_rows(tmp_path / "bad.csv", [{"path": "b\udcff.png"}])
    assert (tmp_path / "bad.csv").read_bytes() == b"path\nb\\udcff.png\n"


def test_an_older_csv_stays_whole_when_writing_fails(tmp_path):
    class Unprintable:
        def __str__(self):
            raise RuntimeError("no text")

    path = tmp_path / "metrics.csv"
    write_rows(path, [{"epoch": 1}])
    with pytest.raises(RuntimeError, match="no text"):
        write_rows(path, [{"epoch": Unprintable()}])
    assert path.read_text() == "epoch\n1\n"


def test_text_is_aligned_numbers_to_the_right():
    rows = [
        {"block": "stage7", "parameters": 1_126_400, "lr": 3e-4, "decay": 0.01, "trainable": True},
        {"block": "head", "parameters": 12_810, "lr": None, "decay": 0.0, "trainable": False},
    ]
    assert format_table(rows) == (
        "block   parameters      lr  decay  trainable\n"
        "stage7   1,126,400  0.0003   0.01  yes\n"
        "head        12,810       -      0  no"
    )


def test_text_of_no_rows_is_empty():
    assert format_table([]) == ""


def test_control_characters_do_not_reach_the_terminal():
    assert format_table([{"class": "a\x1b[31m\nb"}]) == "class\na\ufffd[31m\ufffdb"
