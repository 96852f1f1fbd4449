"""Output on a terminal: real processes on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread

CTRL_C = "\x03"
STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def on_terminal(
    *words: str,
    typed: str = "",
    when: str = "",
    columns: int = 100,
    **environment: str,
) -> tuple[int, str]:
    """Return exit code and screen of a call at a terminal.

    Args:
        words: The call.
        typed: What is typed.
        when: The text that it is typed after.
        columns: Width of the terminal.
        environment: What the call's environment has besides.
    """
    leader, follower = pty.openpty()
    size = struct.pack("HHHH", 24, columns, 0, 0)
    fcntl.ioctl(follower, termios.TIOCSWINSZ, size)
    process = subprocess.Popen(
        [sys.executable, "-m", "herdbook.cli", *words],
        env={**os.environ, "TERM": "xterm", **environment},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 65536):
            shown += chunk
            if typed and when.encode() in shown:
                if typed == CTRL_C:
                    process.send_signal(signal.SIGINT)  # it has no terminal to do so
                else:
                    os.write(leader, typed.encode())
                typed = ""
    except OSError:  # the last writer has left: Linux says so in this way
        pass
    os.close(leader)
    return process.wait(20), shown.decode().replace("\r\n", "\n")


def test_terminal_gets_colors(server: SandboxThread, log: Path) -> None:
    code, shown = on_terminal("ls")

    assert code == 0
    assert "\x1b[1mMODEL" in shown


def test_no_color_is_respected(server: SandboxThread, log: Path) -> None:
    _, shown = on_terminal("ls", NO_COLOR="1")

    assert "\x1b[3" not in shown
    assert "qwen2.5-coder:7b" in shown


def test_narrow_terminal_drops_columns_but_keeps_names_whole(
    server: SandboxThread, log: Path
) -> None:
    _, shown = on_terminal("ls", columns=50)

    lines = STYLE.sub("", shown).splitlines()
    assert lines[0].split() == ["MODEL", "STATE", "SIZE"]
    assert any(line.startswith("nomic-embed-text:latest   ") for line in lines)


def test_a_pull_draws_a_bar(server: SandboxThread, log: Path) -> None:
    server.apply(registry={"rate": 1e6})

    code, shown = on_terminal("pull", "qwen3:0.6b")

    assert code == 0
    assert "━" in shown
    assert STYLE.sub("", shown).splitlines()[-1].startswith("qwen3:0.6b pulled in ")


def test_load_shows_a_spinner(server: SandboxThread, log: Path) -> None:
    code, shown = on_terminal("load", "llama3.2:3b")

    assert code == 0
    assert "loading llama3.2:3b" in shown


def test_rm_asks_and_accepts_no(
    server: SandboxThread, log: Path, herdbook: Herdbook
) -> None:
    code, shown = on_terminal("rm", "smollm2:135m", typed="n\n", when="[y/N]")

    assert code == 1
    assert "Delete smollm2:135m? This frees 271 MB. [y/N]" in STYLE.sub("", shown)
    assert "Nothing was deleted." in shown
    assert herdbook("show", "smollm2:135m", "--json").json["present"]


def test_rm_treats_end_of_input_as_no(server: SandboxThread, log: Path) -> None:
    code, shown = on_terminal("rm", "smollm2:135m", typed="\x04", when="[y/N]")

    assert code == 1
    assert "Nothing was deleted." in shown


def test_rm_deletes_after_yes(
    server: SandboxThread, log: Path, herdbook: Herdbook
) -> None:
    assert on_terminal("rm", "smollm2:135m", typed="y\n", when="[y/N]")[0] == 0
    assert not herdbook("show", "smollm2:135m", "--json").json["present"]


def test_free_deletes_nothing_after_no(server: SandboxThread, log: Path) -> None:
    code, shown = on_terminal("free", "1MB", typed="n\n", when="[y/N]")

    assert code == 1
    assert shown.rstrip().endswith("Nothing was deleted.")


def test_rm_does_not_ask_with_yes(server: SandboxThread, log: Path) -> None:
    code, shown = on_terminal("rm", "smollm2:135m", "--yes")

    assert (code, "[y/N]" in shown) == (0, False)


def demo_on(server: SandboxThread, directory: Path) -> tuple[int, str]:
    """Run the demo, agree to use a server; return the exit code and the text."""
    code, shown = on_terminal(
        "demo",
        typed="y\n",
        when="[y/N]",
        OLLAMA_HOST=server.address,
        TMPDIR=str(directory),
    )
    return code, " ".join(STYLE.sub("", shown).split())


@pytest.mark.timeout(180)
def test_demo_asks_before_it_pulls_from_a_real_server(
    serving: Callable[..., SandboxThread], log: Path, tmp_path: Path
) -> None:
    real = serving(speed=4.0, rate=3e7)

    code, text = demo_on(real, tmp_path)

    assert code == 0
    assert "Pull qwen3:0.6b and tinyllama:1.1b there (1.2 GB)?" in text
    assert "herdbook rm qwen3:0.6b tinyllama:1.1b" in text
    assert "pull interrupted" in text
    assert "0 findings" in text


def test_demo_ends_at_the_command_that_failed(
    serving: Callable[..., SandboxThread], log: Path, tmp_path: Path
) -> None:
    real = serving(speed=100.0)
    real.apply(registry={"manifest_status": 500, "manifest_body": "down"})

    code, text = demo_on(real, tmp_path)

    assert code != 0
    assert "The demo ends here, because this command failed." in text
    assert "Load it into memory." not in text


def test_help_has_panels(log: Path) -> None:
    code, shown = on_terminal("--help")

    assert code == 0
    assert "History" in shown


PRUNING = "[models.'smollm2:135m']\n[models.'qwen3:0.6b']\nloaded = true\n"


def test_apply_asks_before_it_deletes(server: SandboxThread, log: Path) -> None:
    wanted = log.with_name("herd.toml")
    wanted.write_text(PRUNING)
    code, shown = on_terminal(
        "apply", str(wanted), "--prune", typed="n\n", when="[y/N]"
    )

    assert code == 1
    assert "Apply the plan and delete 4 models (10.3 GB)?" in shown
    assert "Nothing was changed." in shown


def test_apply_runs_all_steps_after_yes(
    server: SandboxThread, log: Path, herdbook: Herdbook
) -> None:
    wanted = log.with_name("herd.toml")
    wanted.write_text(PRUNING)
    code, shown = on_terminal(
        "apply", str(wanted), "--prune", typed="y\n", when="[y/N]"
    )

    assert code == 0
    assert STYLE.sub("", shown).splitlines()[-1] == "qwen3:0.6b loaded"
    assert len(herdbook("ls", "--json").json) == 2


def test_stopped_apply_shows_the_skipped_steps(
    serving: Callable[..., SandboxThread], log: Path
) -> None:
    slow = serving(speed=1.0, rate=2e7)
    wanted = log.with_name("herd.toml")
    wanted.write_text(PRUNING)
    code, shown = on_terminal(
        "apply", str(wanted), "--ollama", slow.address, typed=CTRL_C, when=" of 523 MB"
    )
    lines = STYLE.sub("", shown).splitlines()

    assert code == 1
    assert "failed: pull qwen3:0.6b" in lines
    assert "skipped: load qwen3:0.6b" in lines


def test_apply_without_deletions_does_not_ask(server: SandboxThread, log: Path) -> None:
    wanted = log.with_name("herd.toml")
    wanted.write_text(PRUNING)
    code, shown = on_terminal("apply", str(wanted))

    assert code == 0
    assert "[y/N]" not in shown
