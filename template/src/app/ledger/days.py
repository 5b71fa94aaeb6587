"""Days of the owner's time zone: when a budget is whole again."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from app.cascade.errors import ConfigurationError

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def zone(name: str) -> tzinfo:
    """A time zone by its IANA name.

    Raises:
        ConfigurationError: there is none of that name.
    """
    # UTC needs no database, which Windows and some images do not have.
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ConfigurationError(
            f"LEDGER_TIMEZONE: this system knows no time zone {name!r}; write UTC or a name such"
            " as Europe/Rome, and install tzdata where the system has none"
        ) from None


def seconds_left(now: datetime, zone: tzinfo) -> float:
    """Until midnight there, which is not always 24 hours after the last one."""
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    return (start_of(tomorrow, zone) - now).total_seconds()


def start_of(day: date, zone: tzinfo) -> datetime:
    """The moment when a day begins there, in UTC."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)
