"""A sandbox server that speaks Ollama's API over a simulated store of models.

Invariant: its answers match the recordings of a real server. It imports no other
package of Herdbook, so that a mistake there cannot hide a mistake here.
"""

from __future__ import annotations

from herdbook.sandbox.api.app import application
from herdbook.sandbox.clock import Clock, ManualClock, RealClock, let_others_run
from herdbook.sandbox.faults import apply_step
from herdbook.sandbox.registry.registry import Behaviour
from herdbook.sandbox.run import Options, run_sandbox
from herdbook.sandbox.scripted_answers import ScriptedAnswer
from herdbook.sandbox.server import serve
from herdbook.sandbox.settings import CURRENT, OLDER, PROFILES, Profile, Settings
from herdbook.sandbox.world import HERD_HOST, Seen, World

__all__ = [
    "CURRENT",
    "HERD_HOST",
    "OLDER",
    "PROFILES",
    "Behaviour",
    "Clock",
    "ManualClock",
    "Options",
    "Profile",
    "RealClock",
    "ScriptedAnswer",
    "Seen",
    "Settings",
    "World",
    "application",
    "apply_step",
    "let_others_run",
    "run_sandbox",
    "serve",
]
