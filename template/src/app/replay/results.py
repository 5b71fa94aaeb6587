"""The result file: JSON Lines, a line for the cascade and one for each prompt that was asked.

A line is written whole as soon as its answer is there; what a crash left half is taken away when
the file is opened again. So whatever ends a run, the next one goes on from there.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from app.cascade.config import ActiveCascade
from app.cascade.errors import CascadeError, ConfigurationError
from app.cascade.types import Json, Outcome
from app.values import value

if sys.platform != "win32":
    import fcntl

VERSION = 1
BEGINNING = b'{"replay":'


@value
class Result:
    """What became of one prompt. Money is in US dollars, time in milliseconds."""

    key: str
    line: int
    name: str
    prompt: str
    outcome: Outcome
    complexity: str
    reason: str
    """Of the verdict, or of the failure."""
    model: str | None
    answer: str
    draft: str
    """The text that was rejected; empty if none was."""
    confidence: float | None
    cost: Decimal
    baseline: Decimal
    """What the verifier alone would have cost."""
    latency_ms: float
    verifier_ms: float | None
    """The verifier's part of it, if it was asked."""
    input_tokens: int
    output_tokens: int
    finish_reason: str | None = None

    @property
    def answered(self) -> bool:
        return self.outcome != "failed"

    @property
    def saved(self) -> Decimal:
        return self.baseline - self.cost


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid")

    replay: int
    cascade: dict[str, Json]


class CannotWrite(CascadeError):
    """The disk is full, or the file is gone."""


_RESULT = TypeAdapter(Result)


class Results:
    """An open result file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.by_key: dict[str, Result] = {}
        """The last result of each prompt."""
        self.spent = Decimal(0)
        """By all runs, failures and further tries included."""
        self.mended = False
        """Whether half a line was taken away."""
        self._descriptor = descriptor
        self._size = 0

    def add(self, result: Result) -> None:
        """Keep a result.

        Raises:
            CannotWrite: it is not kept, and nothing of it is in the file.
        """
        self._write(asdict(result))
        self._note(result)

    def load(self, cascade: dict[str, Json]) -> None:
        """Read what is there; begin the file if it is new.

        Raises:
            ConfigurationError: it is no result file, or of another cascade.
        """
        with self.path.open("rb") as file:
            raw = file.read()
        whole, newline, half = raw.rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        try:
            if lines:
                self._check(_Head.model_validate_json(lines[0]), cascade)
            elif half and not half.startswith(BEGINNING):
                raise self._foreign()
            for line in lines[1:]:
                self._note(_RESULT.validate_json(line))
        except ValidationError:
            raise self._foreign() from None
        # Only now that the file is known to be ours may it be changed.
        self._size = len(raw) - len(half)
        if half:
            os.ftruncate(self._descriptor, self._size)
            self.mended = True
        if not lines:
            self._write({"replay": VERSION, "cascade": cascade})

    def _note(self, result: Result) -> None:
        self.by_key[result.key] = result
        self.spent += result.cost

    def _check(self, head: _Head, now: Mapping[str, Json]) -> None:
        if head.replay != VERSION:
            raise self._foreign()
        old, new = _flat(head.cascade), _flat(now)
        changed = [
            f"  {name} was {old.get(name, 'not set')}, is {new.get(name, 'not set')}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        if changed:
            raise ConfigurationError(
                "\n".join(
                    [
                        f"{self.path} has the results of another cascade:",
                        *changed,
                        "Give --results another file, and both can be compared.",
                    ]
                )
            )

    def _foreign(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path} is no result file of replay, and is left as it is: give --results another"
        )

    def _write(self, value: Mapping[str, object]) -> None:
        text = json.dumps(value, ensure_ascii=False, default=str)
        line = f"{text}\n".encode("utf-8", "replace")
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            raise CannotWrite(f"{self.path}: cannot be written ({error.strerror})") from None
        self._size += len(line)


@contextmanager
def opened(path: Path, models: ActiveCascade) -> Iterator[Results]:
    """The result file, for this process alone and readable by its user alone.

    Raises:
        ConfigurationError: it cannot be used.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be opened ({error.strerror})") from None
    try:
        if sys.platform != "win32":
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError(f"{path}: another replay is writing it") from None
        results = Results(path, descriptor)
        results.load(fingerprint(models))
        yield results
    finally:
        os.close(descriptor)


def fingerprint(models: ActiveCascade) -> dict[str, Json]:
    """All that a verdict or a price depends on; names of keys are no part of it."""
    found: dict[str, Json] = {
        "strictness": models.strictness,
        "adaptive": models.adaptive,
        "thresholds": {str(name): value for name, value in sorted(models.thresholds.items())},
        "on_verifier_failure": models.on_verifier_failure,
        "simulated": models.simulated,
        "drafter": models.drafter.model_dump(mode="json", exclude={"key"}, exclude_none=True),
        "verifier": models.verifier.model_dump(mode="json", exclude={"key"}, exclude_none=True),
    }
    return found


def _flat(table: Mapping[str, Json]) -> dict[str, Json]:
    return {
        f"{name}.{key}" if key else name: value
        for name, found in table.items()
        for key, value in (found.items() if isinstance(found, dict) else [("", found)])
    }
