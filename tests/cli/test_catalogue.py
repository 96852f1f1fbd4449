"""The user's own catalogue of known models, which overrides the shipped one."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread

OWN = """
[sources.house]
title = "Measured in our house"
date = 2026-11-20

[models."acme-coder"]
source = "house"
coding = true
context = 65536
pull = "acme-coder:7b"

[roles]
coding = ["acme-coder"]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    return path


def test_suggestions_use_the_custom_catalogue(
    server: SandboxThread, herdbook: Herdbook, own: Path
) -> None:
    answer = herdbook("suggest", "coding", "--catalogue", str(own))

    assert "herdbook pull acme-coder:7b" in answer.out


def test_custom_catalogue_is_set_by_the_environment(
    server: SandboxThread,
    herdbook: Herdbook,
    own: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HERDBOOK_CATALOGUE", str(own))

    assert "acme-coder:7b" in herdbook("suggest", "coding").out


def test_custom_catalogue_in_the_configuration_directory_is_found(
    server: SandboxThread,
    herdbook: Herdbook,
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "herdbook").mkdir()
    own.rename(tmp_path / "herdbook" / "catalogue.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    assert "acme-coder:7b" in herdbook("suggest", "coding").out


def test_damaged_catalogue_is_one_line_and_usage(
    server: SandboxThread, herdbook: Herdbook, own: Path
) -> None:
    own.write_text(OWN.replace("65536", '"long"'))

    answer = herdbook("suggest", "coding", "--catalogue", str(own))

    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "acme-coder" in answer.err
