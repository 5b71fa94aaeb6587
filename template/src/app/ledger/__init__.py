"""Who spent what. A budget is held by reserving the worst case first and settling to the truth."""

from app.ledger.books import Ledger
from app.ledger.types import (
    ANYONE,
    Account,
    Budgets,
    Entry,
    Health,
    OnFailure,
    Record,
    Reservation,
    Totals,
    UsageOfDay,
)

__all__ = [
    "ANYONE",
    "Account",
    "Budgets",
    "Entry",
    "Health",
    "Ledger",
    "OnFailure",
    "Record",
    "Reservation",
    "Totals",
    "UsageOfDay",
]
