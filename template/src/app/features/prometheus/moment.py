"""What is true at the moment of a scrape, the same for every worker: books, budget, features."""

from collections.abc import Iterator, Mapping
from contextlib import suppress

from fastapi import FastAPI
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

from app.about import about
from app.cascade.engine import Engine
from app.cascade.errors import LedgerUnavailable
from app.features import Standing, standings
from app.ledger import Health, Ledger, Totals
from app.values import value


@value
class State:
    """What was found out for one scrape."""

    health: Health
    totals: Totals | None
    standings: Mapping[str, Standing]
    engine: Engine | None
    draining: bool


async def ask(app: FastAPI) -> State:
    """Ask the books and the features; what is out of reach is left out."""
    ledger: Ledger = app.state.ledger
    health = await ledger.health()
    totals = None
    if health.reachable:
        with suppress(LedgerUnavailable):
            totals = await ledger.totals()
    found = await standings(app.state.features)
    return State(health, totals, found, app.state.engine, app.state.drain.begun)


class Moment:
    """A collector of that."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """The gauges; those of the budget only while the books are within reach."""
        state = self._state
        yield GaugeMetricFamily(
            "cascadeflow_ledger_reachable",
            "1 while the books can be written",
            value=state.health.reachable,
        )
        if state.totals:
            budget, spent = state.totals.budget, state.totals.spent_today
            yield GaugeMetricFamily(
                "cascadeflow_budget_dollars", "What may be spent in a day", value=float(budget)
            )
            yield GaugeMetricFamily(
                "cascadeflow_budget_remaining_dollars",
                "What is left of today's budget, queries in flight aside",
                value=float(budget - spent),
            )
        reachable = GaugeMetricFamily(
            "cascadeflow_feature_reachable",
            "1 while what a feature leans on is within reach; if not, requests pass or are refused",
            labels=["feature", "kind", "on_failure"],
        )
        for name, standing in state.standings.items():
            reachable.add_metric(
                [name, standing.kind, standing.on_failure], float(standing.reachable)
            )
        yield reachable
        yield GaugeMetricFamily(
            "cascadeflow_draining", "1 once the service begins to stop", value=state.draining
        )
        if state.engine:
            models = state.engine.models
            info = InfoMetricFamily("cascadeflow_service", "What runs here")
            info.add_metric(
                [],
                {
                    "version": about().version,
                    "drafter": models.drafter.name,
                    "verifier": models.verifier.name,
                    "simulated": str(models.simulated).lower(),
                },
            )
            yield info
