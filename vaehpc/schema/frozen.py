"""What all values have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

STORED: Final = "stored"
"""Context of a validation: the value was read from a study."""

Count = Annotated[int, Field(gt=0, le=10**9)]
"""How many of something a setting asks for; beyond, nothing fits into a machine."""
Amount = Annotated[float, Field(gt=0, le=1e12)]
"""How much of something a setting asks for."""
Portion = Annotated[float, Field(ge=0, le=1e12)]
"""The same, or nothing of it."""


def asked(is_possible: Callable[[Any], bool], why: str) -> AfterValidator:
    """A bound of what is asked for: a study that an earlier release planned beyond it is read."""

    def checked(value: Any, info: ValidationInfo) -> Any:
        if info.context != STORED and not is_possible(value):
            raise ValueError(why)
        return value

    return AfterValidator(checked)


def at_least(least: int) -> AfterValidator:
    """The least number that can be asked for."""
    return asked(lambda number: number >= least, f"at least {least} is needed")


LARGEST = 1e250
"""No finite number that is found is larger: neither what float32 holds nor sums of its squares. What may be the
exponential of a log_var stands in a dictionary."""


def _within(least: float, most: float) -> Callable[[float], float]:
    def checked(value: float) -> float:
        if value < least or value > most:
            raise ValueError(f"cannot be {value}")
        return value

    return checked


NonNegative = Annotated[float, AfterValidator(_within(0, math.inf))]
"""At least 0; NaN stands for what is not defined, infinity for what has no finite value."""
Proportion = Annotated[float, AfterValidator(_within(0, 1 + 1e-6))]
"""From 0 to 1, but for rounding; or NaN."""


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
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, (int, float)) and LARGEST < abs(number) < math.inf:
                    raise ValueError(f"{name} cannot be {number}")
