"""The verbs below ``node``: list, add, change, move and remove nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer

from herdbook.cli.app import INSPECT, verb, verb_group
from herdbook.cli.commands.servers.node_options import (
    SETTINGS,
    KeyEnv,
    MaxModel,
    Patterns,
    Prefer,
    Tags,
    Weight,
    with_options,
    without,
)
from herdbook.cli.completion import complete_node
from herdbook.cli.errors import DONE, FAILED, UsageError
from herdbook.cli.invocation import Invocation, warn
from herdbook.cli.options import Node, Yes
from herdbook.cli.output import Column, Piece, Row
from herdbook.core import Fleet, HerdbookError, NodeStatus, OllamaError, ReadModel
from herdbook.core.fleet import nodes_file
from herdbook.core.fleet.members import node_url
from herdbook.core.fleet.nodes_file import NodeAction, NodeStep
from herdbook.core.ollama.address import same_server
from herdbook.events.facts import NodeSettings
from herdbook.events.instances import Holder
from herdbook.presentation import nodes as texts
from herdbook.presentation import shapes
from herdbook.presentation.wording import NOTHING
from herdbook.projections.nodes import default_node
from herdbook.projections.sentences import bytes_text, counted

_COLUMNS = (
    Column("NODE"),
    Column("STATE"),
    Column("ADDRESS", gives_way=2),
    Column("OLLAMA", gives_way=3),
    Column("MODELS", right=True),
    Column("LOADED", right=True),
    Column("MEMORY", gives_way=1, right=True),
    Column("REFRESHED BY", gives_way=4),
    Column("SETTINGS", gives_way=5),
)
_NEW_ADDRESS = (NodeAction.ADD, NodeAction.MOVE)
"""Steps after which a server is asked for the first time."""

EveryNode = Annotated[bool, typer.Option("--all", "-a", help="Include removed nodes.")]


@verb_group("node", INSPECT)
async def node(invocation: Invocation) -> int:
    """Show, add and change the nodes (servers) in this log.

    Without a command, shows the only node, or lists the nodes.
    """
    async with invocation.reading(refresh=False) as fleet:
        if fleet.is_several:
            _write_list(invocation, await fleet.now(), await fleet.reconcilers())
            return DONE
        (status,) = await fleet.nodes()
        reconciler = (await fleet.reconcilers()).get(status.name)
    if invocation.json:
        invocation.screen.write_json(shapes.Node(node=status, moved=False))
    else:
        _write_card(invocation, status)
        if reconciler is not None:
            text = texts.reconciler_text(reconciler)
            invocation.screen.write(f"Refreshed by {text}")
    return DONE


@verb("list", group=node)
async def list_(invocation: Invocation, *, every: EveryNode = False) -> None:
    """List the nodes with state, address, models and memory.

    Reads only the log; no server is asked.
    """
    async with invocation.reading(refresh=False) as fleet:
        read_models = await fleet.now()
        reconcilers = await fleet.reconcilers()
        if every:
            shown = {one.node for one in read_models}
            known = read_models[0].nodes()
            gone = [one.name for one in known if one.removed_at is not None]
            read_models += [
                read_models[0].of(name) for name in gone if name not in shown
            ]
    _write_list(invocation, read_models, reconcilers)


@verb("add", group=node)
async def add(  # noqa: PLR0913 - the settings of a node
    invocation: Invocation,
    name: Node,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Address of its Ollama server.")
    ],
    *,
    key_env: KeyEnv = None,
    tag: Tags = None,
    weight: Weight = None,
    models: Patterns = None,
    prefer: Prefer = None,
    max_model: MaxModel = None,
) -> None:
    """Add a node and discover its models.

    All processes that use this log then manage the node, even if its server does not
    answer yet.
    """
    settings = with_options(
        NodeSettings(),
        key_env=key_env,
        tags=tag,
        weight=weight,
        models=models,
        prefer=prefer,
        max_model=max_model,
    )
    async with invocation.managing_nodes() as fleet:
        await fleet.add(name, url, settings)
        asked = await _asked(fleet, name)
    if invocation.json:
        invocation.screen.write_json(asked.node)
    else:
        invocation.screen.write(f"{name} {asked.text('added')}")


@verb("configure", group=node)
async def configure(  # noqa: PLR0913 - the settings of a node
    invocation: Invocation,
    name: Node,
    *,
    key_env: KeyEnv = None,
    tag: Tags = None,
    weight: Weight = None,
    models: Patterns = None,
    prefer: Prefer = None,
    max_model: MaxModel = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Remove a setting: {', '.join(SETTINGS)} or tags.KEY. Repeatable.",
        ),
    ] = None,
) -> None:
    """Show or change the settings of a node."""
    async with invocation.managing_nodes() as fleet:
        before = await fleet.node(name)
        settings = with_options(
            without(before.settings, unset or []),
            key_env=key_env,
            tags=tag,
            weight=weight,
            models=models,
            prefer=prefer,
            max_model=max_model,
        )
        if settings != before.settings:
            await fleet.configure(name, settings)
        status = await fleet.node(name)
    if invocation.json:
        invocation.screen.write_json(status)
        return
    rows = texts.settings_rows(status.settings)
    if rows:
        invocation.screen.write_table(
            (Column("SETTING"), Column("VALUE")),
            [Row([Piece(key), Piece(text)]) for key, text in rows],
        )
    else:
        invocation.screen.write(f"{name} has no settings: the defaults apply.")


@verb("drain", group=node)
async def drain(invocation: Invocation, name: Node) -> None:
    """Stop sending requests and models to a node.

    Running requests finish.
    """
    await _drain(invocation, name, drained=True)


@verb("undrain", group=node)
async def undrain(invocation: Invocation, name: Node) -> None:
    """Use a drained node again."""
    await _drain(invocation, name, drained=False)


@verb("remove", group=node)
async def remove(invocation: Invocation, name: Node) -> None:
    """Stop managing a node. Its models and its history are kept."""
    async with invocation.managing_nodes() as fleet:
        status = await fleet.remove(name)
    if invocation.json:
        invocation.screen.write_json(status)
    else:
        invocation.screen.write(
            f"{name} removed. Its models remain on the server at {status.url}"
        )


@verb("move", group=node)
async def move(
    invocation: Invocation,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Name of the node; default: the only one.",
            autocompletion=complete_node,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]", help="New address; default: --ollama or OLLAMA_HOST."
        ),
    ] = None,
    *,
    yes: Yes = False,
) -> int:
    """Record that the server of a node has a new address.

    Herdbook refuses to use an address other than the recorded one, because a different
    server may have different models.
    """
    moved, text = False, ""
    async with invocation.managing_nodes() as fleet:
        before = await _meant(invocation, fleet, name)
        new = invocation.url if url is None else node_url(before.name, url)
        changes = before.url and not same_server(before.url, new)
        if changes:
            if not yes and not invocation.attended:
                raise UsageError("node move", "needs confirmation", "Add --yes")
            question = f"Move {before.name} from {before.url} to {new}?"
            if not yes and not invocation.agreed(question):
                return FAILED
            await fleet.move(before.name, new)
            asked = await _asked(fleet, before.name)
            moved, text = True, asked.text(f"moved to {asked.node.url}")
        status = await fleet.node(before.name)
    if invocation.json:
        invocation.screen.write_json(shapes.Node(node=status, moved=moved))
        return DONE
    if not moved and status.url:
        text = f"not moved: its address is already {status.url}"
    elif not moved:
        text = "not moved: no address recorded yet. To record it: herdbook refresh"
    invocation.screen.write(f"{status.name}: {text}")
    return DONE


@verb("apply", group=node)
async def apply(
    invocation: Invocation,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML file with the nodes.")
    ],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the changes without making them.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove nodes that are not in FILE.")
    ] = False,
) -> None:
    """Add, move and configure nodes to match a file."""
    desired = nodes_file.read(file)
    async with invocation.managing_nodes() as fleet:
        steps = nodes_file.steps(desired, await fleet.nodes(), prune=prune)
        done: list[NodeStep] = []
        try:
            for step in steps if not dry_run else ():
                await fleet.apply(step)
                done.append(step)
        except HerdbookError:
            _write_steps(invocation, done, done=True)
            raise
        new = [step.node for step in done if step.action in _NEW_ADDRESS]
        asked = await asyncio.gather(*(_asked(fleet, name) for name in new))
        for name, one in zip(new, asked, strict=True):
            if one.error is not None:
                warn(f"{name}: {one.error}")
    _write_steps(invocation, steps, done=not dry_run)


def _write_steps(invocation: Invocation, steps: list[NodeStep], *, done: bool) -> None:
    screen = invocation.screen
    if invocation.json:
        screen.write_json([shapes.NodeChange(step=step, done=done) for step in steps])
        return
    if not steps:
        screen.write("Nothing to do: the nodes match the file.")
        return
    rows = [
        Row([Piece(step.action.value), Piece(step.node), Piece(_effect(step))])
        for step in steps
    ]
    columns = (Column("STEP"), Column("NODE"), Column("EFFECT", gives_way=1))
    screen.write_table(columns, rows)
    number = counted(len(steps), "change")
    screen.write(f"{number} made." if done else f"{number}; none made (--dry-run).")


def _effect(step: NodeStep) -> str:
    url = step.url if step.action in _NEW_ADDRESS else ""
    settings = ""
    if step.settings is not None:
        settings = texts.settings_text(step.settings)
        drained = "drained" if step.settings.drained else ""
        settings = ", ".join(filter(None, [settings, drained]))
    if step.action is NodeAction.CONFIGURE:
        return settings or "no settings"
    return ", ".join(filter(None, [url, settings])) or NOTHING


class _Asked(NamedTuple):
    """A node after its server was asked, and why that does not answer."""

    node: texts.Node
    error: OllamaError | None

    def text(self, done: str) -> str:
        """Return what was done, and what the server has or why it does not answer."""
        if self.error is not None:
            return f"{done}, but it does not answer: {self.error}"
        number = counted(self.node.models, "model")
        return f"{done} (Ollama {self.node.server_version}, {number})"


async def _asked(fleet: Fleet, name: str) -> _Asked:
    manager, error = fleet.manager(name), None
    try:
        await manager.refresh()
    except OllamaError as failed:
        error = failed
    return _Asked(texts.node(await manager.now()), error)


async def _drain(invocation: Invocation, name: str, *, drained: bool) -> None:
    async with invocation.managing_nodes() as fleet:
        before = await fleet.node(name)
        settings = msgspec.structs.replace(before.settings, drained=drained)
        status = await fleet.configure(name, settings)
    if invocation.json:
        invocation.screen.write_json(status)
        return
    changed = before.settings.drained is not drained
    if changed:
        words = "drained" if drained else "no longer drained"
    else:
        words = "already drained" if drained else "not drained"
    invocation.screen.write(f"{name} is {words}")


async def _meant(invocation: Invocation, fleet: Fleet, name: str | None) -> NodeStatus:
    """Return the named node, that of ``--node``, the only one, or ``local``."""
    nodes = await fleet.nodes()
    named = name or invocation.node or default_node(nodes)
    if named:
        return await fleet.node(named)
    names = ", ".join(one.name for one in nodes)
    raise UsageError("node move", "needs the name of a node", f"Nodes: {names}")


def _write_list(
    invocation: Invocation,
    read_models: list[ReadModel],
    reconcilers: Mapping[str, Holder],
) -> None:
    screen, now = invocation.screen, invocation.now
    found = [texts.node(one, reconcilers) for one in read_models]
    if invocation.json:
        screen.write_json(found)
        return
    rows = [
        Row(
            [
                Piece(one.name, "bold"),
                Piece(texts.state_text(one, now), "" if one.reached else "yellow"),
                Piece(one.url or NOTHING),
                Piece(one.server_version or NOTHING),
                Piece(str(one.models)),
                Piece(str(one.loaded)),
                Piece(bytes_text(one.memory_bytes) if one.memory_bytes else NOTHING),
                Piece(texts.reconciler_text(one.reconciler) or NOTHING),
                Piece(texts.settings_text(one.settings) or NOTHING),
            ]
        )
        for one in found
    ]
    screen.write_table(_COLUMNS, rows)


def _write_card(invocation: Invocation, status: NodeStatus) -> None:
    screen = invocation.screen
    screen.write(f"Node     {status.name}")
    screen.write(f"Address  {status.url or 'not known yet'}")
    screen.write(f"Version  {status.server_version or 'not known yet'}")
    state = texts.state_text(status, invocation.now)
    reason = f": {status.message}" if status.message and not status.reached else ""
    screen.write(f"State    {state}{reason}")
    settings = texts.settings_text(status.settings)
    if settings:
        screen.write(f"Settings {settings}")
