"""Latency tables: what they hold, and what is said of those that lack or repeat something."""

import pytest

from engine.latency import LatencyTable
from engine.results import FormatError

TABLE = """\
layer,w_bits,a_bits,ms
conv1,8,8,0.5
conv1,4,8,0.25
fc,32,32,1e-3
"""


@pytest.fixture
def table_of(tmp_path):
    def load(text):
        path = tmp_path / "times.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return LatencyTable.load(path)

    return load


def test_a_table_comes_from_a_file(table_of, tmp_path):
    table = table_of(TABLE)
    assert table.times == {("conv1", 8, 8): 0.5, ("conv1", 4, 8): 0.25, ("fc", 32, 32): 0.001}
    assert table.ms("conv1", 4, 8) == 0.25
    assert table.source == str(tmp_path / "times.csv")


def test_what_spreadsheets_write(table_of):
    text = '\ufeffms, a_bits,note,"w_bits",layer\r\n0.5,8,measured,4, "a,b"\r\n\r\n,,,,\r\n'
    with pytest.raises(FormatError, match=r"line 4, must name a layer, got none\.$"):
        table_of(text)
    assert table_of(text.replace(",,,,\r\n", "")).times == {("a,b", 4, 8): 0.5}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "",
            "FILE must have the columns layer, w_bits, a_bits, ms, but lacks layer, w_bits, "
            "a_bits, ms: name them in its first line.",
        ),
        (
            "layer,w_bits,ms\n",
            "FILE must have the columns layer, w_bits, a_bits, ms, but lacks a_bits: name them in "
            "its first line.",
        ),
        (
            TABLE + "fc,9,8,1\n",
            "FILE, line 5, w_bits must be a bit width in 1…8, or 32 for float, got '9'.",
        ),
        (
            TABLE + "fc,8\n",
            "FILE, line 5, a_bits must be a bit width in 1…8, or 32 for float, got ''.",
        ),
        *(
            (
                TABLE + f"fc,8,8,{ms}\n",
                f"FILE, line 5, ms must be a time of at least 0, got '{ms}'.",
            )
            for ms in ("-0.1", "nan", "inf", "fast", "")
        ),
        (
            TABLE + "conv1,4,8,0.25\n",
            "FILE, line 5, must not repeat layer 'conv1' at 4 and 8 bits: keep one of the rows.",
        ),
    ],
)
def test_sentences_for_wrong_files(table_of, tmp_path, text, sentence):
    with pytest.raises(FormatError) as caught:
        table_of(text)
    assert str(caught.value).replace(str(tmp_path / "times.csv"), "FILE") == sentence


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"layer," + b"x" * 200_000])
def test_what_is_no_csv(table_of, content):
    with pytest.raises(FormatError, match=r"must be a latency table in CSV, but cannot be read: "):
        table_of(content)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FormatError, match=r"but cannot be read: \[Errno 2\]"):
        LatencyTable.load(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (
            ("conv2", 8, 8),
            "latency must have every layer, but FILE lacks 'conv2': add its rows.",
        ),
        (
            ("conv1", 4, 4),
            "latency must have every pair of bit widths, but FILE lacks w_bits 4 and a_bits 4 of "
            "layer 'conv1' (it has 4 and 8, 8 and 8): add a row, or allow fewer bit widths; 32 "
            "stands for float.",
        ),
    ],
)
def test_sentences_for_what_a_table_lacks(table_of, tmp_path, key, sentence):
    with pytest.raises(ValueError, match=r".") as caught:
        table_of(TABLE).ms(*key)
    assert str(caught.value).replace(str(tmp_path / "times.csv"), "FILE") == sentence
