"""Titles and remarks of runs: any text, kept apart from what was asked."""

import pytest

from engine.jobs import describe, list_runs, view
from engine.jobs.descriptions import DESCRIPTION, Description
from engine.jobs.folders import SPEC, new_run

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "**bold** $x^2$ [a](javascript:alert(1)) :red[x] `code`",
    "../../etc/passwd",
    "'; DROP TABLE runs; --",
    "{0.__class__}",
    "é 漢字 \U0001f680 \u202e",
)


@pytest.fixture
def folder(runs):
    made = new_run("analyze", "a", {}, None)
    assert made.parent == runs
    return made


def test_a_run_has_neither_until_it_is_given_one(folder):
    before = (folder / SPEC).read_bytes()
    assert (view(folder.name).title, view(folder.name).remark) == ("", "")
    assert describe(folder.name, title="Best so far") == Description("Best so far", "")
    describe(folder.name, remark="Kept for the talk.\nSee slide 3.")
    seen = view(folder.name)
    assert (seen.title, seen.remark) == ("Best so far", "Kept for the talk.\nSee slide 3.")
    assert list_runs()[0].title == "Best so far"
    describe(folder.name, title="", remark="")
    assert (view(folder.name).title, view(folder.name).remark) == ("", "")
    assert (folder / SPEC).read_bytes() == before


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_comes_back_as_it_was(folder, text):
    describe(folder.name, title=text, remark=text)
    assert (view(folder.name).title, view(folder.name).remark) == (text, text)


def test_a_title_is_one_line_and_a_remark_has_no_loose_ends(folder):
    describe(folder.name, title="  one\n two\tthree ", remark="\r\n a  \r\n\tb \n\n")
    seen = view(folder.name)
    assert (seen.title, seen.remark) == ("one two three", "a\n        b")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"title": "x" * 81}, "title must have 80 characters at most, got 81: shorten it."),
        ({"remark": "x" * 2001}, "remark must have 2,000 characters at most, got 2,001: shorten"),
        ({"title": "\x1b[31m"}, r"title must hold no control characters, got '\\x1b': leave it"),
        ({"remark": "a\x00"}, r"remark must hold no control characters, got '\\x00': leave it"),
        ({"title": "\ud800"}, r"title must hold no control characters, got '\\ud800': leave it"),
    ],
)
def test_what_is_no_title_is_refused_and_changes_nothing(folder, given, said):
    describe(folder.name, title="kept", remark="kept")
    with pytest.raises(ValueError, match=f"^{said}"):
        describe(folder.name, **given)
    assert (view(folder.name).title, view(folder.name).remark) == ("kept", "kept")


def test_what_is_no_text_is_refused():
    with pytest.raises(ValueError, match=r"^title must be text, got \['x'\]\.$"):
        Description(title=["x"])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not JSON",
        "[]",
        '{"kind": "description", "version": 1, "title": 3}',
        '{"kind": "description", "version": 1, "titel": "x"}',
        '{"kind": "description", "version": 1, "title": "\\ud800"}',
        '{"kind": "run", "version": 1, "title": "x"}',
    ],
)
def test_a_damaged_description_costs_no_run(folder, content):
    (folder / DESCRIPTION).write_text(content)
    assert (view(folder.name).title, view(folder.name).remark) == ("", "")
    describe(folder.name, remark="written anew")
    assert view(folder.name).remark == "written anew"


def test_an_unknown_run_cannot_be_described(runs):
    with pytest.raises(ValueError, match=r"^run must be the id of one in .*, got '\.\./x'\.$"):
        describe("../x", title="x")
    assert not list(runs.rglob(DESCRIPTION))
