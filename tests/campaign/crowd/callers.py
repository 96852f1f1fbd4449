"""The two kinds of callers: a manager in this process, and a service over HTTP."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

import httpx
from campaign.crowd.commands import ReportedModels
from campaign.crowd.crowd import RefusedError

from herdbook.core import ModelManager, ModelStatus
from herdbook.events.facts import Setting

POLL_S = 0.05
"""Seconds between two requests for the state of an operation."""


class LocalCaller:
    """A manager in this process."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    async def load(self, name: str, context: int | None) -> None:
        options: dict[str, Setting] = {"num_ctx": context} if context else {}
        await self._manager.load(name, options=options)

    async def unload(self, name: str) -> None:
        await self._manager.unload(name)

    async def delete(self, name: str) -> None:
        await self._manager.delete(name)

    async def pull(self, name: str) -> None:
        async with aclosing(self._manager.pull(name)) as progress:
            async for _ in progress:
                pass

    async def use(self, name: str, tag: str) -> None:
        await self._manager.mark_used(name, purpose=tag)

    async def configure(self, name: str, seed: int, tag: str) -> None:
        await self._manager.configure(name, {"options.seed": seed}, note=tag)

    async def refresh(self) -> None:
        await self._manager.refresh()

    async def cancel(self, name: str) -> None:
        await self._manager.cancel(name)

    async def read(self, name: str) -> None:
        await self._manager.get_status(name)
        await self._manager.recommend("coding")

    async def end_all(self) -> None:
        for running in self._manager.under_way():
            await self._manager.cancel(running.name)

    async def models(self) -> ReportedModels:
        statuses: list[ModelStatus] = await self._manager.all_statuses()
        return {
            status.name: (status.digest or "", status.runner is not None)
            for status in statuses
            if status.present
        }

    async def busy(self) -> list[str]:
        statuses = await self._manager.all_statuses()
        return [status.name for status in statuses if status.work or status.update]


class ServiceCaller:
    """A service, called over HTTP; server errors fail the test.

    Attributes:
        failed: Answers with a status of 500 or more.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.failed: list[str] = []

    async def load(self, name: str, context: int | None) -> None:
        options = {"num_ctx": context} if context else {}
        await self._operate("load", name, options=options)

    async def unload(self, name: str) -> None:
        await self._operate("unload", name)

    async def delete(self, name: str) -> None:
        await self._ask("DELETE", f"/v1/models/{name}")

    async def pull(self, name: str) -> None:
        await self._operate("pull", name)

    async def use(self, name: str, tag: str) -> None:
        await self._ask("POST", f"/v1/models/{name}/uses", json={"purpose": tag})

    async def configure(self, name: str, seed: int, tag: str) -> None:
        await self._ask(
            "PUT",
            f"/v1/models/{name}/configuration",
            json={"settings": {"options.seed": seed}, "note": tag},
            headers={"if-match": "*"},
        )

    async def refresh(self) -> None:
        await self._operate("refresh")

    async def cancel(self, name: str) -> None:
        for one in await self._ask("GET", "/v1/operations?state=running"):
            if one["model"] == name:
                await self._ask("DELETE", f"/v1/operations/{one['id']}")

    async def read(self, name: str) -> None:
        for path in ("/", "/readyz", "/metrics", f"/v1/models/{name}/history"):
            await self._ask("GET", path)

    async def end_all(self) -> None:
        for one in await self._ask("GET", "/v1/operations?state=running"):
            await self._ask("DELETE", f"/v1/operations/{one['id']}")

    async def models(self) -> ReportedModels:
        return {
            one["name"]: (one["digest"] or "", one["runner"] is not None)
            for one in await self._ask("GET", "/v1/models")
            if one["present"]
        }

    async def busy(self) -> list[str]:
        models = await self._ask("GET", "/v1/models")
        return [one["name"] for one in models if one["work"] or one["update"]]

    async def _ask(self, method: str, path: str, **given: Any) -> Any:
        """Send a request and return the decoded answer.

        Raises:
            RefusedError: The service refused the request.
        """
        answer = await self._http.request(method, path, **given)
        if answer.status_code >= 500:
            self.failed.append(f"{method} {path}: {answer.status_code} {answer.text}")
        if answer.status_code >= 400:
            problem = answer.json()
            raise RefusedError(problem["code"], problem["detail"])
        is_json = "json" in answer.headers.get("content-type", "")
        return answer.json() if is_json else answer.text

    async def _operate(self, kind: str, model: str | None = None, **more: Any) -> None:
        """Start an operation and wait for its end; cancelling the caller cancels it.

        Raises:
            RefusedError: The operation was refused, or it failed.
        """
        body = {"kind": kind, "model": model, **more}
        one = await self._ask("POST", "/v1/operations", json=body)
        path = f"/v1/operations/{one['id']}"
        try:
            while one["state"] == "running":
                await asyncio.sleep(POLL_S)
                one = await self._ask("GET", path)
        except asyncio.CancelledError:
            with suppress(RefusedError):
                await self._ask("DELETE", path)
            raise
        if one["state"] in {"cancelled", "interrupted"}:
            raise RefusedError("cancelled", one["state"])
        if one["error"] is not None:
            raise RefusedError(one["error"]["code"], one["error"]["detail"])
