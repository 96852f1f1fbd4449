"""Anchors and proofs on the command line, and the program in the docs."""

from __future__ import annotations

import json
import re
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from support.cli_runner import Herdbook

from herdbook.core import CallerError
from herdbook.core.proof.anchor import parse_anchors
from herdbook.core.proof.anchor_file import append_anchor

PAGE = (Path(__file__).parents[4] / "docs" / "proof.md").read_text()
PROGRAM = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def key(herdbook: Herdbook, tmp_path: Path) -> Path:
    made = herdbook("key", "new", str(tmp_path / "key.pem"), "--name", "alice")
    assert made.code == 0
    assert made.out.startswith("alice+")
    return tmp_path / "key.pem"


def use(herdbook: Herdbook) -> None:
    """Record one event more."""
    name = herdbook("ls", "--json").json[0]["name"]
    assert herdbook("use", name).code == 0


def checked(
    tmp_path: Path, proof: object, key: Path
) -> subprocess.CompletedProcess[str]:
    program, file = tmp_path / "check.py", tmp_path / "proof.json"
    program.write_text(PROGRAM)
    file.write_text(json.dumps(proof, indent=2, ensure_ascii=False) + "\n")
    return subprocess.run(
        [sys.executable, str(program), str(file), f"{key}.pub"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_proof_is_checked_by_the_program_of_the_docs(
    herdbook: Herdbook, key: Path, tmp_path: Path
) -> None:
    herdbook("ls")
    proof = herdbook("prove", "#2", "--key", str(key)).json

    assert checked(tmp_path, proof, key).stdout.startswith("#2 is in herdbook/")
    for changed in (
        proof | {"canonical": proof["canonical"].replace("reconciler", "nobody")},
        proof | {"position": 3},
        proof | {"path": proof["path"][1:]},
        proof | {"path": [*proof["path"], "00" * 32]},
        proof | {"previous": "0" * 64},
        proof | {"anchor": proof["anchor"].replace("\ntime 2", "\ntime 3")},
    ):
        assert checked(tmp_path, changed, key).returncode == 1


def test_program_of_the_docs_refuses_a_proof_with_any_altered_byte(
    herdbook: Herdbook, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    herdbook("ls")
    proof = herdbook("prove", "#2", "--key", str(key)).out.encode()
    program = compile(PROGRAM, "docs/proof.md", "exec")
    file = tmp_path / "proof.json"
    monkeypatch.setattr(sys, "argv", ["check.py", str(file), f"{key}.pub"])

    def accepted(data: bytes) -> bool:
        file.write_bytes(data)
        try:
            exec(program, {})
        except Exception:  # noqa: BLE001 - any error refuses the proof
            return False
        return True

    assert accepted(proof)
    for at in range(len(proof)):
        altered = bytearray(proof)
        altered[at] ^= 1 << (at % 8)
        assert not accepted(bytes(altered)), proof[: at + 1]
    for old, new in (
        (b'"position": 2,', b'"position": 2.0,'),
        (b'"position": 2,', b'"position": 2,\n  "more": 1,'),
        (b" alice ", b" alice  "),
        (b'\\n"\n}', b'\\n\\n"\n}'),
    ):
        assert proof.count(old) == 1
        assert not accepted(proof.replace(old, new)), new


def test_anchors_in_a_file_are_compared_with_the_log(
    herdbook: Herdbook, key: Path, tmp_path: Path, log: Path
) -> None:
    anchors = tmp_path / "anchors.txt"
    herdbook("ls")
    herdbook("anchor", "--key", str(key), "--append", str(anchors))
    use(herdbook)
    signed = herdbook("anchor", "--key", str(key), "--append", str(anchors))
    verify = ("verify", "--anchors", str(anchors), "--key", f"{key}.pub")

    assert "\n\n— alice " in signed.out
    matching = herdbook(*verify)
    unchecked = herdbook(*verify[:3])
    assert matching.code == 0
    assert "2 anchors match, up to #" in matching.out
    assert "Signatures" not in matching.out
    assert "Signatures were not checked" in unchecked.out

    with closing(sqlite3.connect(log, isolation_level=None)) as db:
        db.execute("DROP TRIGGER events_are_not_changed")
        db.execute("UPDATE events SET actor = 'somebody' WHERE position = 2")
    answer = herdbook(*verify)
    assert answer.code == 1
    assert "2 anchors checked; see the findings" in answer.out


def test_verify_refuses_anchors_of_other_keys(
    herdbook: Herdbook, key: Path, tmp_path: Path
) -> None:
    anchors = tmp_path / "anchors.txt"
    herdbook("ls")
    herdbook("anchor", "--append", str(anchors))

    answer = herdbook("verify", "--anchors", str(anchors), "--key", f"{key}.pub")

    out = " ".join(answer.out.split())
    assert answer.code == 1
    assert "is not signed by any of the given keys" in out
    assert "chain intact from #1 to #" in out
    assert "but not confirmed by every anchor" in out


def test_keys_that_cannot_sign_are_refused(
    herdbook: Herdbook, key: Path, tmp_path: Path
) -> None:
    herdbook("ls")
    private, public = key.read_bytes(), Path(f"{key}.pub")
    herdbook("key", "new", str(tmp_path / "other.pem"), "--name", "bob")
    encrypted = serialization.load_pem_private_key(private, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    for content, said in (
        (b"", "is not a private key"),
        (encrypted, "is not a private key"),
        (public.read_bytes(), "is not a private key"),
        ((tmp_path / "other.pem").read_bytes(), "does not belong to the public key"),
    ):
        key.write_bytes(content)
        answer = herdbook("anchor", "--key", str(key))
        assert (answer.code, answer.out) == (2, "")
        assert said in answer.err
    key.write_bytes(private)
    assert herdbook("anchor", "--key", str(key)).code == 0


def test_private_key_that_others_can_read_is_refused(
    herdbook: Herdbook, key: Path
) -> None:
    herdbook("ls")
    key.chmod(0o640)

    answer = herdbook("prove", "#1", "--key", str(key))

    assert (answer.code, answer.out) == (2, "")
    assert f"{key} can be read by others. Run: chmod 600 {key}" in answer.err


def test_private_key_in_place_of_a_public_one_is_not_shown(
    herdbook: Herdbook, key: Path, tmp_path: Path
) -> None:
    anchors = tmp_path / "anchors.txt"
    herdbook("ls")
    herdbook("anchor", "--append", str(anchors))

    answer = herdbook("verify", "--anchors", str(anchors), "--key", str(key))

    assert answer.code == 2
    assert "Use the file that ends with .pub" in answer.err
    assert key.read_text().splitlines()[1][:10] not in answer.err


def test_later_anchor_is_consistent_with_an_earlier_one(
    herdbook: Herdbook, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    herdbook("ls")
    herdbook("anchor", "--append", str(first))
    use(herdbook)
    herdbook("anchor", "--append", str(second))

    proof = herdbook("prove-consistency", str(first), str(second))
    backwards = herdbook("consistent", str(second), str(first))

    assert proof.code == 0
    assert proof.json["format"] == "herdbook-consistency/1"
    assert backwards.code == 2


def test_anchor_in_json_has_its_text(herdbook: Herdbook) -> None:
    herdbook("ls")

    anchor = herdbook("anchor", "--json").json

    assert anchor["text"].splitlines()[1] == str(anchor["position"])
    assert anchor["root"] in anchor["text"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["prove", "two"], 2, "is not a position"),
        (["prove", "#99999"], 2, "does not exist"),
        (["verify", "--anchors", "nowhere.txt"], 2, "cannot be read"),
        (["anchor", "--key", "nowhere.pem"], 2, "nowhere.pem cannot be read: No such"),
    ],
)
def test_errors_of_proofs_are_one_line(
    herdbook: Herdbook, words: list[str], code: int, said: str
) -> None:
    herdbook("ls")

    answer = herdbook(*words)

    assert answer.code == code
    assert said in answer.err


def test_anchor_is_not_appended_to_the_log(herdbook: Herdbook, log: Path) -> None:
    herdbook("ls")
    before = log.read_bytes()

    answer = herdbook("anchor", "--append", str(log))

    assert answer.code == 2
    assert "is the log itself" in answer.err
    assert log.read_bytes() == before


def test_anchor_that_cannot_be_written_leaves_no_part(
    herdbook: Herdbook, tmp_path: Path
) -> None:
    herdbook("ls")
    anchors = tmp_path / "anchors.txt"
    herdbook("anchor", "--append", str(anchors))
    whole = anchors.read_text()
    [anchor] = parse_anchors(whole, source="anchors")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 100, limits[1]))
    try:
        with pytest.raises(CallerError, match="cannot be written"):
            append_anchor(anchors, anchor)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    assert anchors.read_text() == whole


def test_anchor_of_an_empty_log_is_refused(herdbook: Herdbook, log: Path) -> None:
    assert herdbook("anchor").code == 3
    assert not log.exists()
