"""What goes wrong by the user's doing; imports nothing, so that a typing error costs no waiting."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence that says why and what to do."""
