"""The actions on models: buttons, confirmations, and the forms that perform them."""

from __future__ import annotations
