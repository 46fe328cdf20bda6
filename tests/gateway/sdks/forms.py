"""The tools and the form that SDKs are tried with, and what the stand-in makes of them."""

from __future__ import annotations

import pydantic

QUESTION = "What is the weather in Paris?"
FILE = ("asked.jsonl", b'{"custom_id": "one"}\n')


class Weather(pydantic.BaseModel):
    """Get the weather of a city."""

    city: str
    days: int


class Clock(pydantic.BaseModel):
    """Get the time of a city."""

    city: str


class Place(pydantic.BaseModel):
    """Where it was measured."""

    name: str


class Report(pydantic.BaseModel):
    """What a structured answer holds."""

    city: str
    degrees: list[float]
    is_sunny: bool
    place: Place


TOOLS: dict[str, type[pydantic.BaseModel]] = {"weather": Weather, "clock": Clock}
CALLED = [("weather", {"city": "Paris", "days": 3}), ("clock", {"city": "Paris"})]
REPORT = Report(city="Paris", degrees=[0.5], is_sunny=True, place=Place(name="Paris"))
TEXT = "Paris, où le café coûte 3 €."


def weather(city: str, days: int) -> str:
    """Get the weather of a city.

    Args:
        city: its name
        days: how many
    """
    return f"{days} days of sun in {city}"


HEARD = "3 days of sun in Paris"
