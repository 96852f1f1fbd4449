"""Every verb that reads works on a log that older versions or others left odd."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread
from support.odd_log import MODEL, ODD, new_log, odd_log

READING = (
    ("ls",),
    ("ls", "--json"),
    ("show", MODEL),
    ("show", MODEL, "--json"),
    ("recommend", "general"),
    ("recommend", "general", "--json"),
    ("suggest", "coding"),
    ("node",),
    ("refresh",),
    ("graph",),
    ("graph", MODEL),
    ("config", MODEL),
    ("freeze",),
    ("history",),
    ("history", "--json"),
    ("history", MODEL),
    ("log",),
    ("log", "--json"),
    ("as-of", "#4"),
    ("as-of", "#5"),
    ("as-of", "2026-01-02T00:00Z"),
    ("diff", "#1"),
    ("diff", "#3", "#5", "--json"),
    ("why", MODEL),
    ("why", MODEL, "--json"),
)
"""What is asked of a log; ``verify`` and ``doctor`` report what is odd."""


PAGES = 16
"""Pages of the file that ``new_log`` makes."""


@pytest.mark.parametrize("what", ODD)
def test_every_verb_reads_an_odd_log(
    what: str, herdbook: Herdbook, server: SandboxThread, log: Path
) -> None:
    odd_log(log, what)
    herdbook("refresh")
    for words in READING:
        answer = herdbook(*words)
        assert (words, answer.code, answer.err) == (words, 0, "")


@pytest.mark.parametrize("what", ODD)
def test_verify_and_doctor_report_odd_events(
    what: str, herdbook: Herdbook, server: SandboxThread, log: Path
) -> None:
    position = odd_log(log, what)

    verified = herdbook("verify")
    result = herdbook("verify", "--json").json["findings"]
    doctor = herdbook("doctor")

    assert verified.code == 1
    assert f"#{position}" in verified.out
    assert ODD[what].kind in {
        each["kind"] for each in result if each["position"] == position
    }
    assert "Traceback" not in verified.err + doctor.err
    assert doctor.code in {0, 1}
    assert f"#{position} " in doctor.out or what == "name without a tag"


@pytest.mark.parametrize("page", range(PAGES))
def test_damaged_page_is_a_clear_error(
    page: int, herdbook: Herdbook, server: SandboxThread, log: Path
) -> None:
    new_log(log)
    assert log.stat().st_size == PAGES * 4096
    with log.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xa5" * 4096)
    for words in (*READING, ("verify",), ("doctor",)):
        answer = herdbook(*words)
        assert answer.code in {0, 1}, (words, answer)
        for fault in ("Traceback", "unexpected error"):
            assert fault not in answer.err, (words, answer)
        if answer.code and words[0] not in {"verify", "doctor"}:
            assert any(
                result in answer.out + answer.err
                for result in ("damaged", "is not a Herdbook log")
            ), (words, answer)
