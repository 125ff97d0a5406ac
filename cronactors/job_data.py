"""The data that jobs, requests and results carry: a JSON value each, beside the text for people."""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

from cronactors.json_value import Json, JsonCopy, JsonInput, JsonText

MAX_DATA = 1_000_000
"""Longest data of a job or of a request (bytes of JSON)."""
MAX_RESULT_DATA = 65_536
"""Longest data of a result (bytes of JSON)."""


class FromJob(Enum):
    """The type of ``FROM_JOB``."""

    FROM_JOB = "from_job"


FROM_JOB: Final = FromJob.FROM_JOB
"""A requested run has the data of its job, where ``None`` means that it has none."""

NO_DATA: Final = JsonText("null", "data")


def check_data(field: str, value: object, *, limit: int = MAX_DATA) -> JsonText:
    """Check and copy data: a JSON value; None is none.

    Raises:
        InvalidJob: It is no JSON value, or too long; the message names the field and the key in it, never the value.
    """
    if type(value) is JsonText:
        return value
    if value is None:
        return NO_DATA
    return JsonText(JsonCopy(field, limit).text(value), field)


def convert_data(value: JsonInput | JsonText) -> JsonText:
    """Convert and check the field ``data`` of a job."""
    return check_data("data", value)


def convert_result_data(value: JsonInput | JsonText) -> JsonText:
    """Convert and check the field ``data`` of a result."""
    return check_data("data", value, limit=MAX_RESULT_DATA)


def convert_stored_result(value: JsonInput | JsonText) -> JsonText:
    """Convert and check the field ``result_data`` of a run."""
    return check_data("result_data", value, limit=MAX_RESULT_DATA)


def data_to_column(data: JsonText) -> str | None:
    """Write data for its column: JSON, or None if there is none."""
    return None if data.text == NO_DATA.text else data.text


def data_from_column(text: str | None, field: str = "data") -> JsonText:
    """Make data of its column without reading it: it is read when it is used, so that damaged data fails its own run only."""
    return NO_DATA if text is None else JsonText(text, field)


@attrs.frozen(kw_only=True)
class WithData:
    """A value with ``data``."""

    _data: JsonText = attrs.field(default=NO_DATA, repr=False, converter=convert_data)  # it may hold a secret

    @property
    def data(self) -> Json:
        """The data: a copy at each access.

        Raises:
            InvalidJob: The stored data is damaged.
        """
        return self._data.read()
