"""A pretend model provider, so that the service answers before anyone has bought an API key.

It speaks the OpenAI chat API over real HTTP with two models: ``simulator-small`` is quick, answers
short plain questions and doubts itself at others; ``simulator-large`` is slower and always sure.
What neither knows gets a placeholder that says so. The cascade in front of them is the real one: it
accepts some drafts and rejects others, on the evidence that it would have from a real provider. The
same request always gets the same answer, tokens, log-probabilities and usage. Tools are called and
schemas filled with examples, where the question has a word of the tool or the client demands it.

Trouble on request: write ``[[who:what]]`` into the last user message (it is removed from there).
``who`` is ``drafter`` (simulator-small), ``verifier`` (simulator-large) or ``both``; ``what`` is

=============  ====================================================================================
400 to 599     that HTTP status, as an OpenAI-shaped error; 429 comes with ``retry-after: 1``
``hang``       no answer until the client goes away
``slow``       200 ms for every token, whatever the speed of the simulator
``cut``        a stream ends after four tokens without finish_reason and [DONE]; JSON is truncated
``garbage``    200 with a body (or a stream event) that is not JSON
``html``       200 with a web page
``empty``      an answer whose content is ""
``nousage``    an answer without ``usage``
``nochoices``  an answer whose ``choices`` are empty
``poor``       a hesitant, useless answer, which the cascade rejects as a draft
``good``       a confident answer, however hard the question
=============  ====================================================================================

Several may be given: the last fault counts, and the last of ``poor`` and ``good`` beside it.

    curl http://127.0.0.1:8000/api/query --json '{"query": "[[drafter:500]] What is AI?"}'

``GET /v1/simulator/stats`` counts each model's answers: started, finished, cancelled, in_flight.
"""

from app.simulator.server import running
from app.simulator.wire import LARGE, MODELS, SMALL, SimulatorConfig, create_simulator

__all__ = ["LARGE", "MODELS", "SMALL", "SimulatorConfig", "create_simulator", "running"]
