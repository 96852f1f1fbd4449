from __future__ import annotations

import io
import json

import pytest

from herdbook.cli.output import (
    Column,
    Line,
    Piece,
    Row,
    Screen,
    bar,
    clean,
    folded,
    line,
    table_lines,
)
from herdbook.presentation.wording import NOTHING

COLUMNS = (
    Column("MODEL"),
    Column("SIZE", gives_way=1, right=True),
    Column("CAN", gives_way=2),
)
ROWS = [
    Row([Piece("llama3.1:8b"), Piece("4.9 GB"), Piece("tools")]),
    Row([Piece("a"), Piece(NOTHING), Piece(NOTHING)]),
]


def plain(lines: list[Line]) -> list[str]:
    return ["".join(piece.text for piece in each) for each in lines]


def test_table_aligns_its_columns() -> None:
    assert plain(table_lines(COLUMNS, ROWS)) == [
        "MODEL           SIZE   CAN",
        "llama3.1:8b   4.9 GB   tools",
        f"a                  {NOTHING}   {NOTHING}",
    ]


@pytest.mark.parametrize(
    ("width", "head"),
    [(28, "MODEL           SIZE   CAN"), (27, "MODEL           SIZE"), (5, "MODEL")],
)
def test_table_drops_columns_but_keeps_names_whole(width: int, head: str) -> None:
    lines = plain(table_lines(COLUMNS, ROWS, width=width))

    assert lines[0] == head
    assert lines[1].startswith("llama3.1:8b")


def test_table_leaves_out_a_column_without_content() -> None:
    rows = [Row([Piece("a"), Piece(""), Piece("b")])]

    assert plain(table_lines(COLUMNS, rows, headers=False)) == ["a   b"]


def test_table_adds_lines_below_a_row() -> None:
    row = Row(
        [Piece("twin"), Piece("1 B"), Piece("x")], line("twin (same)"), [line("!")]
    )

    lines = plain(table_lines(COLUMNS, [row], headers=False))

    assert lines == ["twin (same)", "1 B   x", "!"]


def test_table_lets_a_long_cell_overflow() -> None:
    rows = [
        Row([Piece("x" * 99), Piece("1 B"), Piece("a")]),
        Row([Piece("y"), Piece("2 B"), Piece("b")]),
    ]

    lines = plain(table_lines(COLUMNS, rows, headers=False))

    assert lines[0] == "x" * 99 + "   1 B   a"
    assert len(lines[1]) == 60 + len("   2 B   b")


@pytest.mark.parametrize(
    ("share", "drawn"), [(0, "────"), (0.5, "━━──"), (0.4, "━╸──"), (1.7, "━━━━")]
)
def test_bar_shows_the_share(share: float, drawn: str) -> None:
    assert plain([bar(share, 4)]) == [drawn]


def test_clean_removes_control_characters() -> None:
    assert clean("a\x1b[31mb\nc") == "a�[31mb c"


def test_screen_writes_plain_text_to_a_pipe() -> None:
    stream = io.StringIO()

    Screen(stream).write(Piece("bold\x07", "bold"), " text")

    assert stream.getvalue() == "bold� text\n"


def test_screen_writes_json_indented_or_in_one_line() -> None:
    stream = io.StringIO()
    screen = Screen(stream)

    screen.write_json({"a": 1})
    screen.write_json({"a": 1}, in_lines=True)

    assert stream.getvalue() == '{\n  "a": 1\n}\n{"a":1}\n'


def test_screen_waits_silently_in_a_pipe() -> None:
    stream = io.StringIO()

    with Screen(stream).waiting("loading"):
        pass

    assert stream.getvalue() == ""


def test_json_has_no_invisible_characters() -> None:
    hostile = "a\u202eb\u200b\x7f\x9b\u2028\U000e0041é🐑"
    stream = io.StringIO()
    Screen(stream).write_json([hostile])

    result = stream.getvalue()
    assert all(c.isprintable() or c == "\n" for c in result)
    assert json.loads(result) == [hostile]
    assert "é🐑" in result


def test_line_for_a_terminal_is_broken_between_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    error = "herdbook: llama3.1:latest was not found on node 'local'   (exit 3)"
    terminal, pipe = io.StringIO(), io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)

    assert folded(error, pipe) == error
    lines = folded(error, terminal).splitlines()
    assert [len(one) <= 40 for one in lines] == [True, True]
    assert " ".join(lines).split() == error.split()
