"""Disk space is freed by a proposal, and by an explicit list of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.cli_runner import SandboxThread
from support.service_program import ServiceThread, run_in_thread
from support.web.http_fixture import ADMIN, OPERATOR, TOKENS


def present(herdbook: ServiceThread) -> dict[str, int]:
    return {each["name"]: each["size_bytes"] for each in herdbook.get("/v1/models")}


def chosen(proposal: dict[str, Any]) -> list[str]:
    return [step["name"] for group in proposal["chosen"] for step in group["steps"]]


def test_proposal_deletes_nothing(herdbook: ServiceThread) -> None:
    before = present(herdbook)

    proposal = herdbook.get("/v1/free?bytes=1")
    kept = herdbook.get(f"/v1/free?bytes=1&keep={chosen(proposal)[0]}")

    assert proposal["is_enough"]
    assert proposal["deleted"] == []
    assert len(chosen(proposal)) == 1
    assert chosen(kept) != chosen(proposal)
    assert present(herdbook) == before


def test_models_of_the_desired_set_are_never_proposed(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    file = tmp_path / "herd.toml"
    file.write_text('[models."gemma3:4b"]\n')
    log = tmp_path / "herd.db"
    with run_in_thread(log, ollama.address, desired=file) as running:
        proposal = running.get("/v1/free?bytes=900GB")
        answer = running.http.post("/v1/free", json={"models": ["gemma3:4b"]})
        here = present(running)

    assert set(chosen(proposal)) == here.keys() - {"gemma3:4b"}
    error = answer.json()["models"][0]["error"]
    assert (error["code"], error["state"]) == ("model_kept", "is in the desired set")
    assert "gemma3:4b" in here


def test_named_models_are_deleted_and_others_stay(herdbook: ServiceThread) -> None:
    before = present(herdbook)
    name, loaded = sorted(before)[:2]
    herdbook.operate("load", loaded)

    answer = herdbook.http.post("/v1/free", json={"models": [loaded, "no:1b", name]})

    assert answer.status_code == 200
    freed = answer.json()
    assert freed["freed_bytes"] == before[name]
    assert [(each["name"], each["done"]) for each in freed["models"]] == [
        (loaded, False),
        ("no:1b", False),
        (name, True),
    ]
    errors = [each["error"] for each in freed["models"][:2]]
    assert [(each["code"], each["state"]) for each in errors] == [
        ("model_kept", "is loaded"),
        ("model_kept", "is not on the server"),
    ]
    assert present(herdbook).keys() == before.keys() - {name}


def test_empty_list_and_unknown_fields_are_refused(herdbook: ServiceThread) -> None:
    bodies: list[dict[str, Any]] = [{"models": []}, {}, {"models": ["a:b"], "bytes": 1}]
    for body in bodies:
        assert herdbook.http.post("/v1/free", json=body).status_code == 400
    assert herdbook.http.get("/v1/free?bytes=0").status_code == 400


def test_size_is_accepted_as_people_type_it(herdbook: ServiceThread) -> None:
    for text in ("2000000000", "2GB", "2 gb", "2g", "2000MB"):
        proposal = herdbook.get(f"/v1/free?bytes={text}")
        assert proposal["wanted_bytes"] == 2_000_000_000
    for text in ("", "much", "-1", "0GB", "9" * 39, "999999999999TB", "1.5"):
        answer = herdbook.http.get("/v1/free", params={"bytes": text})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_only_an_admin_frees_space(tmp_path: Path, ollama: SandboxThread) -> None:
    with run_in_thread(tmp_path / "herd.db", ollama.address, tokens=TOKENS) as running:

        def status(token: str) -> int:
            headers = {"authorization": f"Bearer {token}"}
            body = {"models": ["no:1b"]}
            answer = running.http.post("/v1/free", json=body, headers=headers)
            return answer.status_code

        assert (status(OPERATOR), status(ADMIN)) == (403, 200)
