"""What all values have in common."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

STORED: Final = "stored"
"""Context of a validation: the value was read from a study."""


class Frozen(BaseModel):
    """A value: cannot be changed, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Result(Frozen):
    """A value that was found, not asked for: keys of another release are kept where it is read, none may be added."""

    model_config = ConfigDict(extra="allow")

    def model_post_init(self, context: Any) -> None:
        """Refuse unknown keys of a value that is made here."""
        if self.model_extra and context != STORED:
            raise TypeError(f"{type(self).__name__} has no {', '.join(self.model_extra)}")
