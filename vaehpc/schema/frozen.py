"""What all values have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

STORED: Final = "stored"
"""Context of a validation: the value was read from a study."""

Count = Annotated[int, Field(gt=0, le=10**9)]
"""How many of something a setting asks for; beyond, nothing fits into a machine."""
Amount = Annotated[float, Field(gt=0, le=1e12)]
"""How much of something a setting asks for."""
Portion = Annotated[float, Field(ge=0, le=1e12)]
"""The same, or nothing of it."""

LARGEST = 1e250
"""No finite number that is found is larger: sums of squares of float32 are not, nor exponentials of any log_var."""


def _within(least: float, most: float) -> Callable[[float], float]:
    def checked(value: float) -> float:
        if value < least or value > most:
            raise ValueError(f"cannot be {value:g}")
        return value

    return checked


NonNegative = Annotated[float, AfterValidator(_within(0, math.inf))]
"""What was found and cannot be negative. NaN stands for what is not defined, infinity for what has no finite value."""
Proportion = Annotated[float, AfterValidator(_within(0, 1 + 1e-6))]
"""The same, and at most 1 but for rounding."""


def _numbers(value: Any) -> Iterator[float]:
    """Those that a field holds itself; a value in it looks after its own."""
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)


class Frozen(BaseModel):
    """A value: cannot be changed, and refuses keys that it does not know. What is asked for is finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="strings")


class Result(Frozen):
    """A value that was found, not asked for: keys of another release are kept where it is read, none may be added."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)

    def model_post_init(self, context: Any) -> None:
        """Refuse unknown keys of a value that is made here, and numbers that no computation leads to."""
        if self.model_extra and context != STORED:
            raise TypeError(f"{type(self).__name__} has no {', '.join(self.model_extra)}")
        for name, value in self.__dict__.items():
            for number in _numbers(value):
                if LARGEST < abs(number) < math.inf:
                    raise ValueError(f"{name} cannot be {number:g}")
