"""Tokens: who may do what. They are kept as hashes, and compared in constant time."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Role(StrEnum):
    """What a token allows; each role allows what those before it do."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def allows(self, needed: Role) -> bool:
        """Return whether this role reaches for what needs that one."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is kept.

    Attributes:
        name: Whose it is; the log has it as the actor ``api:<name>``.
        role: What it allows.
        sha256: SHA-256 of the token, 64 hexadecimal digits.
    """

    name: str
    role: Role
    sha256: str


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks.

    Attributes:
        name: The name of the token.
        role: What it allows.
    """

    name: str
    role: Role

    @property
    def actor(self) -> str:
        """The actor that the log has for it."""
        return f"api:{self.name}"
