"""What all values have in common."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

STORED: Final = "stored"
"""Context of a validation: the value was read from a study."""

Count = Annotated[int, Field(gt=0, le=10**9)]
"""How many of something a setting asks for; beyond, nothing fits into a machine."""
Amount = Annotated[float, Field(gt=0, le=1e12)]
"""How much of something a setting asks for."""
Portion = Annotated[float, Field(ge=0, le=1e12)]
"""The same, or nothing of it."""


class Frozen(BaseModel):
    """A value: cannot be changed, and refuses keys that it does not know. What is asked for is finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="strings")


class Result(Frozen):
    """A value that was found, not asked for: keys of another release are kept where it is read, none may be added."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)

    def model_post_init(self, context: Any) -> None:
        """Refuse unknown keys of a value that is made here."""
        if self.model_extra and context != STORED:
            raise TypeError(f"{type(self).__name__} has no {', '.join(self.model_extra)}")
