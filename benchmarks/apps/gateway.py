"""cascadeflow's own gateway, its providers pointed at UPSTREAM_PORT: there is no option for it."""

import os

from cascadeflow import server
from cascadeflow.providers.openai import OpenAIProvider

initialize = OpenAIProvider.__init__


def initialize_here(self: OpenAIProvider, *given: object, **named: object) -> None:
    named.pop("base_url", None)
    initialize(self, *given, **named)
    self.base_url = f"http://127.0.0.1:{os.environ['UPSTREAM_PORT']}/v1"


OpenAIProvider.__init__ = initialize_here
raise SystemExit(server.main())
