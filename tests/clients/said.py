"""What every client asks, and what it must never hear."""

from typing import Any

ACCEPTED = "What is AI?"
REJECTED = "Compare SQL and NoSQL databases"
DRAFT = "Hmm, I don't know"
"""How the draft begins that the cascade rejects."""
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
