"""A small share of the fault campaign: nothing is lost, invented, unreported or hung.

``make campaign`` runs all of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from campaign.faults.anchors import are_true
from campaign.faults.operations import one_log
from campaign.faults.truth import (
    InventedError,
    LostError,
    Row,
    check,
    history,
    readable,
)

from herdbook.cli import run

TESTS = Path(__file__).parents[1]
SEED = "7"
SHARE = "0.01"


@pytest.mark.timeout(400)
def test_share_of_the_campaign_loses_nothing() -> None:
    program = [sys.executable, "-m", "campaign.faults.run"]
    command = [*program, "--seed", SEED, "--share", SHARE]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}

    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False
    )

    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout)
    faults = {name: row["faults"] for name, row in result["classes"].items()}
    print(f"seed {result['seed']}: {faults}")  # noqa: T201 - shown by -rP
    if result["skipped"]:
        pytest.skip("errors of the disk need a C compiler: " + str(result["skipped"]))
    assert len(faults) >= 12
    assert all(faults.values()), faults


ROWS = [Row("a", "1"), Row("b", "2"), Row("c", "3")]


@pytest.mark.parametrize(
    ("found", "submitted", "acknowledged", "error"),
    [
        (ROWS[:2], {"c"}, {"c"}, LostError),
        ([ROWS[0]], {"c"}, set(), LostError),
        ([ROWS[0], Row("b", "9"), ROWS[2]], {"c"}, {"c"}, LostError),
        (ROWS, set(), set(), InventedError),
        ([*ROWS, ROWS[2]], {"c"}, {"c"}, InventedError),
    ],
)
def test_oracle_finds_lost_and_invented_events(
    found: list[Row],
    submitted: set[str],
    acknowledged: set[str],
    error: type[AssertionError],
) -> None:
    check(ROWS, ROWS[:2], {"c"}, {"c"})

    with pytest.raises(error):
        check(found, ROWS[:2], submitted, acknowledged)


def test_oracle_finds_an_altered_event(tmp_path: Path) -> None:
    whole = one_log(tmp_path)
    log = tmp_path / "herd.db"
    copy = tmp_path / "altered.db"
    data = bytearray(log.read_bytes())
    at = data.index(b"note 3")
    data[at : at + 6] = b"note 7"
    copy.write_bytes(data)

    with pytest.raises(InventedError):
        history(copy)
    assert readable(copy) == whole[:3]
    assert history(log) == whole


def test_oracle_finds_altered_anchors(tmp_path: Path) -> None:
    whole = one_log(tmp_path)
    key, anchors = tmp_path / "key", tmp_path / "anchors"
    log = ["--db", str(tmp_path / "herd.db")]
    assert run([*log, "key", "new", str(key), "--name", "ann"]) == 0
    made = [*log, "anchor", "--key", str(key), "--append", str(anchors)]
    assert run(made) == run(made) == 0
    text, public = anchors.read_text(), Path(f"{key}.pub").read_text()

    assert are_true(text, public, whole)
    for at in range(0, len(text), 7):
        altered = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        assert not are_true(altered, public, whole), at
    assert not are_true(text, public, [*whole[:-1], Row("b", "2" * 64)])
    assert not are_true(text[:-2], public, whole)
    assert not are_true("", public, whole)
