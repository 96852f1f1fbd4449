from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server's models be nowhere that the doctor can see."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))


def test_doctor_shows_each_check_and_a_summary(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("ls")
    answer = herdbook("doctor")

    assert answer.code == 0
    assert f"Ollama 0.32.15 at {server.address} answers in" in answer.out
    assert "ok triggers complete" in " ".join(answer.out.split())
    assert "checks: " in answer.out.splitlines()[-1]


def test_doctor_shows_the_remedy_below_each_problem(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    server.apply(weights_deleted="smollm2:135m")
    answer = herdbook("doctor")
    lines = answer.out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("problem"))

    assert answer.code == 1
    assert "its weights are missing" in lines[at]
    assert lines[at + 1] == "  Pull it again"


@pytest.mark.usefixtures("no_server")
def test_doctor_without_a_server_is_a_problem(herdbook: Herdbook, log: Path) -> None:
    answer = herdbook("doctor")

    assert answer.code == 1
    assert "cannot be reached" in answer.out
    assert not log.exists()


@pytest.mark.usefixtures("server")
def test_doctor_with_an_invalid_log_is_a_problem(herdbook: Herdbook, log: Path) -> None:
    log.write_text("nonsense " * 1000)
    answer = herdbook("doctor")

    assert answer.code == 1
    assert "is not a Herdbook log" in answer.out


@pytest.mark.usefixtures("server")
def test_doctor_checks_a_catalogue(herdbook: Herdbook, tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text("nonsense")
    found = herdbook("doctor", "--catalogue", str(path), "--json")

    result = {each["check"]: each for each in found.json}
    assert found.code == 1
    assert result["catalogue"]["level"] == "problem"
    assert "is not TOML" in result["catalogue"]["what"]


@pytest.mark.usefixtures("server")
def test_doctor_answers_in_its_documented_shape(herdbook: Herdbook) -> None:
    found = herdbook("doctor", "--json").json

    assert all({"check", "level", "what", "remedy"} == set(each) for each in found)
    assert {each["level"] for each in found} <= {"ok", "notice", "warning", "problem"}


def test_invalid_address_is_a_usage_error(herdbook: Herdbook) -> None:
    assert herdbook("doctor", "--ollama", "ftp://x").code == 2


def test_doctor_works_without_a_data_directory(
    herdbook: Herdbook,
    server: SandboxThread,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("HERDBOOK_DB")
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "file" / "home"))

    answer = herdbook("doctor")

    assert answer.code == 1
    assert "cannot be created or read: Not a directory" in answer.out
    assert "--db PATH" in answer.out
    assert f"at {server.address} answers in" in answer.out
