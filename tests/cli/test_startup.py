"""The command imports only what the verb uses: imports decide how fast it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support.cli_runner import SandboxThread

PROGRAM = """
import json, sys
from herdbook.cli import run
code = run(sys.argv[1:])
print("\\n" + json.dumps([code, sorted(n for n, m in sys.modules.items() if m)]))
"""

STARTING = {
    *("aiosqlite", "herdbook", "msgspec", "transitions"),
    *("platformdirs", "shellingham", "typer", "annotated_doc", "typing_extensions"),
    "six",  # of transitions
}
"""Packages that every call imports."""

CLIENT = {
    *("httpx", "httpcore", "h11", "certifi", "idna", "anyio", "sniffio", "socksio"),
}
"""Packages that asking the server takes."""

ALWAYS_THERE = {"coverage", "sitecustomize"}
"""What measures the tests, and what a distribution adds to its Python. Names that begin
with ``_`` are of Python and installers."""

ONLY_FOR_OTHERS = (
    *("pydantic", "structlog", "rich.traceback", "rich.markdown"),
    *("litestar", "jinja2", "uvicorn", "prometheus_client", "cryptography"),
    *("herdbook.service", "herdbook.gateway", "herdbook.sandbox"),
)


SLOW_FOR_A_LIST = (
    *("herdbook.core.checks", "herdbook.presentation.shapes"),
    *("html", "tomllib"),
)


def imported(*arguments: str) -> set[str]:
    """Run the command in a process of its own; return the modules it imported."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    code, modules = json.loads(process.stdout.splitlines()[-1])
    assert code == 0, process.stderr
    return set(modules)


def packages(modules: set[str]) -> set[str]:
    """The packages of modules that neither Python nor an installer brings."""
    names = {module.partition(".")[0] for module in modules}
    names -= set(sys.stdlib_module_names) | ALWAYS_THERE
    return {name for name in names if not name.startswith(("_", "$"))}


def test_version_imports_nothing_else() -> None:
    modules = imported("--version")

    assert packages(modules) == {"herdbook"}
    assert "asyncio" not in modules


def test_closed_standard_streams_are_replaced() -> None:
    for verb in ("--version", "graph --help"):
        script = f"exec {sys.executable} -m herdbook.cli {verb} <&- >&-"
        process = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, check=False
        )
        assert (process.returncode, process.stderr) == (0, ""), verb


def test_options_of_a_verb_import_only_the_parser() -> None:
    modules = imported("graph", "--help")

    assert packages(modules) <= STARTING | {"rich", "pygments"}
    assert not modules & set(ONLY_FOR_OTHERS)
    verbs = [name for name in modules if name.startswith("herdbook.cli.commands.")]
    assert set(verbs) <= {
        "herdbook.cli.commands.models",
        "herdbook.cli.commands.models.graph",
    }


def test_a_list_of_models_imports_the_client_and_the_parser(
    tmp_path: Path, server: SandboxThread
) -> None:
    arguments = ["ls", "--db", str(tmp_path / "herd.db"), "--ollama", server.address]

    imported(*arguments)  # new models are looked up in the catalogue

    modules = imported(*arguments)

    assert "httpx" in packages(modules) <= STARTING | CLIENT
    assert not modules & {*ONLY_FOR_OTHERS, *SLOW_FOR_A_LIST}


def test_library_import_loads_neither_client_nor_logging() -> None:
    program = "import json, sys, herdbook.core; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, capture_output=True, text=True, check=True)

    modules = set(json.loads(process.stdout))

    assert packages(modules) <= STARTING - {"platformdirs", "shellingham", "typer"}
