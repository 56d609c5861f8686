"""The base of all settings that a recipe, a suite or --set may hold."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

UNSET = ("none", "null")
"""What takes a setting back to none, which TOML has no word for."""


class Section(BaseModel):
    """A section of settings. Unknown keys are refused, and so are booleans for numbers and numbers that are not finite;
    `none` and `null` unset what may be unset."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - any TOML value
        annotation = cls.model_fields[str(info.field_name)].annotation
        if value in UNSET and type(None) in get_args(annotation):
            return None
        items = value if isinstance(value, list | tuple) else [value]
        if bool not in (annotation, *get_args(annotation)) and any(
            item is True or item is False for item in items
        ):
            raise ValueError("a boolean is no number")
        return value
