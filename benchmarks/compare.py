"""How fast is the service beside what else there is? `make benchmark`, or see README.md here.

    python benchmarks/compare.py [--quick] [--only PATTERN]… [--markdown FILE]

Each round measures every contender once, one after the other; a ratio is taken within a round, and
what is printed is the median of the rounds' ratios.
"""

import contextlib
import fnmatch
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import contenders
import typer
from contenders import ALL, BUILD, HERE, Server

NOISY = 0.15
"""Of the median: a ratio whose middle half of rounds is further apart is not printed."""
SERVICES = ("leanest", "fullest")
OURS = (*SERVICES, "redis")
Sample = dict[str, float]


class WrongAnswer(Exception):
    """A contender did not do what was asked of it."""


# --- a session: the upstream, and whoever runs ----------------------------------------------------


@dataclass
class Session:
    """The upstream and the contenders that have been started, all of them until the end."""

    stack: contextlib.ExitStack
    quick: bool
    upstream: int = 0
    redis: str = ""
    servers: dict[str, Server] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    """Which of LEVELS each has held: where the next round begins to look."""
    doing: str = ""
    """What is measured at the moment."""

    def start_upstream(self) -> None:
        """The one of all contenders, which is the contender `direct` as well."""
        upstream = contenders.running(ALL["direct"], 0, BUILD / "run" / "upstream")
        server = self.stack.enter_context(upstream)
        self.upstream, self.servers["direct"] = server.port, server

    def attempt(self, name: str, measure: Callable[[], Sample]) -> Sample | None:
        """What `measure` returns, or None after a wrong answer."""
        typer.echo(f"\r\x1b[K{self.doing}: {name}", nl=False, err=True)
        try:
            return measure()
        except WrongAnswer as wrong:
            typer.echo(f"\r\x1b[K{self.doing}: {wrong}", err=True)
            return None

    def server(self, name: str) -> Server:
        if name not in self.servers:
            server = self.stack.enter_context(self.starting(name))
            self.servers[name] = server
            self.warm(server)
        return self.servers[name]

    def warm(self, server: Server, *, stream: bool = False) -> None:
        """What a contender does at its first requests only is nobody's measurement."""
        self.set()
        asked = contenders.request(server.contender, 100, stream=stream)
        self.load(server, asked, "", mode="count", connections=8, requests=100)

    @contextlib.contextmanager
    def anew(self, name: str, *, stream: bool) -> Iterator[Server]:
        """A new process: one is some hundredths slower than the next for as long as it lives."""
        if name == "direct":
            yield self.server(name)
            return
        with self.starting(name, f"{name}-anew") as server:
            self.warm(server, stream=stream)
            yield server

    def starting(self, name: str, folder: str = "") -> contextlib.AbstractContextManager[Server]:
        where = BUILD / "run" / (folder or name)
        return contenders.running(ALL[name], self.upstream, where, self.redis)

    def set(self, **how: float) -> None:
        """Tell the upstream how to behave."""
        every = {"delay": 0.0, "cadence": 0.0, "pieces": 0.0} | how
        get(self.upstream, "/set?" + "&".join(f"{name}={value}" for name, value in every.items()))

    def counts(self) -> dict[str, float]:
        return get(self.upstream, "/counts")

    def load(
        self, server: Server, asked: dict[str, object], expected: str, **job: object
    ) -> Sample:
        """Send it requests; what came of them, and the processor time they took."""
        port = self.upstream if server.contender.name == "direct" else server.port
        task = {"port": port, "expected": expected, **asked, **job}
        command = [str(contenders.environment("tools") / "bin" / "python"), str(HERE / "load.py")]
        before, whole = server.cpu(), self.counts()["cpu"]
        with contenders.on(contenders.OTHERS_CORE):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with process:
            assert process.stdin  # noqa: S101
            assert process.stdout  # noqa: S101
            process.stdin.write(json.dumps(task).encode())
            process.stdin.close()
            found: dict[str, Any] = {}
            after = before
            for line in process.stdout:
                match line.strip():
                    case b"begin":
                        before, whole = server.cpu(), self.counts()["cpu"]
                    case b"end":
                        after, found["upstream"] = server.cpu(), self.counts()["cpu"] - whole
                    case other:
                        found |= json.loads(other)
        if after == before:
            after = server.cpu()
        if found.get("failed") and job["mode"] != "streams":
            name = server.contender.name
            raise WrongAnswer(f"{name}: {found['failed']} failed; {found['why'][:600]}")
        sample = {
            name: float(value) for name, value in found.items() if isinstance(value, int | float)
        }
        for name in ("latency", "first", "gap"):
            sample |= {f"{name}_{which}": value for which, value in found[name].items()}
        sample["rate"] = sample["requests"] / sample["seconds"]
        sample["busy"] = (after - before) / sample["seconds"]
        sample["cpu_ms"] = 1000 * (after - before) / max(1.0, sample["requests"])
        return sample


def get(port: int, path: str) -> dict[str, float]:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"http://127.0.0.1:{port}{path}", timeout=10
    ) as answer:
        found: dict[str, float] = json.load(answer)
        return found


# --- workloads ------------------------------------------------------------------------------------

Round = dict[str, Sample | None]
"""What was measured of each contender; None after a wrong answer."""
Measure = Callable[[Session, Sequence[str]], Round]


def in_turn(measure: Callable[[Session, str], Sample], turns: int = 1) -> Measure:
    """One contender after the other, and so several times; the means of the turns."""

    def measure_all(session: Session, names: Sequence[str]) -> Round:
        found: dict[str, list[Sample | None]] = defaultdict(list)
        for _ in range(turns):
            for name in names:
                found[name].append(session.attempt(name, partial(measure, session, name)))
        return {name: mean(samples) for name, samples in found.items()}

    return measure_all


TEXTS = {"accepted": "patterns from data", "rejected": "In short,", "direct": "In short,"}
"""What an answer must hold: the drafter's, or the verifier's."""


def throughput(chars: int, kind: str, stream: bool, connections: int) -> Measure:
    """Requests answered while so many clients each wait for the answer before they ask again."""

    def measure(session: Session, name: str) -> Sample:
        contender = ALL[name]
        session.set()
        # A cascade without RE2 needs seconds for 32 long prompts: the first answers come late.
        warm = {100: 0.5, 2000: 1.5}.get(chars, 7.0)
        seconds = 1.5 if session.quick else 3.0
        sample = session.load(
            session.server(name),
            contenders.request(contender, chars, kind, stream),
            # One model alone is asked once, whatever it says.
            "" if stream else TEXTS[kind] if contender.cascades else "",
            mode="closed",
            connections=connections,
            seconds=seconds * (2 if chars > 2000 else 1),
            warm=warm,
        )
        if contender.cascades:
            check(session.counts(), kind, connections, name)
        return sample

    return in_turn(measure)


def check(counts: dict[str, float], kind: str, connections: int, name: str) -> None:
    """The models were asked as the verdict says; queries that are under way count one or none."""
    small, large = counts["small"], counts["large"]
    right = {
        # cascadeflow's thresholds drift with its traffic, unless a service holds them.
        "accepted": small > 0 and large < small / 50,
        "direct": large > 0 and small == 0,
        "rejected": large > 0 and abs(small - large) <= connections,
    }
    if not right[kind]:
        raise WrongAnswer(f"{name}: {kind}, and small was asked {small:.0f}, large {large:.0f}")


TURNS = 3
"""How often each is asked in a round: a machine that becomes slower does so for all."""


def one_by_one(
    session: Session,
    names: Sequence[str],
    rate: float,
    *,
    stream: bool = False,
    **upstream: float,
) -> Round:
    """Requests that come so many a second, at random times, to a new process of each.

    The means of the turns.
    """
    turns: dict[str, list[Sample | None]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(session.anew(name, stream=stream)) for name in names}
        session.set(**upstream)
        for number in range(TURNS):
            for name, server in servers.items():
                ask = partial(
                    session.load,
                    server,
                    contenders.request(ALL[name], 100, stream=stream),
                    "",
                    mode="open",
                    rate=rate,
                    times=number,
                    seconds=1.0 if session.quick else 3.0,
                    warm=0.5,
                )
                turns[name].append(session.attempt(name, ask))
    return {name: mean(found) for name, found in turns.items()}


def mean(turns: Sequence[Sample | None]) -> Sample | None:
    found = [turn for turn in turns if turn]
    if len(found) < len(turns):
        return None
    return {metric: statistics.fmean(turn[metric] for turn in found) for metric in found[0]}


def latency(session: Session, names: Sequence[str]) -> Round:
    """What is added to an upstream that takes 50 ms, at 40 requests a second."""
    return {
        name: sample
        and {
            **sample,
            "added_p50": sample["latency_p50"] - 50,
            "added_p99": sample["latency_p99"] - 50,
        }
        for name, sample in one_by_one(session, names, 40, delay=0.05).items()
    }


def first(session: Session, names: Sequence[str]) -> Round:
    """Time to the first token of streams that begin 20 a second; the model takes 20 ms."""
    return one_by_one(session, names, 20, stream=True, delay=0.02, cadence=0.01, pieces=10)


FEW = 30
LEVELS = [round(20 * 1.2**step) for step in range(23)]
GAP = 15.0
"""Milliseconds: with a piece each 10 ms, 99 of 100 gaps must be below."""


def streams(session: Session, name: str) -> Sample:
    """The most streams, a piece each 10 ms, of which no gap in a hundred is over 15 ms."""
    at = max(0, session.held.get(name, 3) - 2)
    held = 0
    with session.anew(name, stream=True) as server:
        # Of so many the processor time is known even where the machine is too busy for any gap.
        few = paced(session, server, FEW)
        while at < len(LEVELS):
            if not holds(session, server, LEVELS[at]):
                if held or at == 0:
                    break
                at = max(0, at - 3)
                continue
            held, session.held[name] = LEVELS[at], at
            at += 1
        if held and at < len(LEVELS):
            # Levels are a fifth apart; twice halved, a twentieth.
            too_many = LEVELS[at]
            for _ in range(2):
                between = round(math.sqrt(held * too_many))
                if holds(session, server, between):
                    held = between
                else:
                    too_many = between
    return {"streams": float(held), "cpu_ms": few["busy"] / FEW}


def holds(session: Session, server: Server, count: int) -> bool:
    """In one try of two: the machine's own pause of 5 ms is the hundredth gap of all at once."""
    for _ in range(2):
        found = paced(session, server, count)
        due = 100 * count * found["seconds"]
        if not found["failed"] and found["gap_p99"] < GAP and found["pieces"] > 0.9 * due:
            return True
    return False


def paced(session: Session, server: Server, count: int) -> Sample:
    """What came of so many streams at once."""
    warm, seconds = 1.0, 1.0 if session.quick else 2.0
    session.set(cadence=0.01, pieces=100 * (warm + seconds + 2))
    return session.load(
        server,
        contenders.request(server.contender, 100, stream=True),
        "",
        mode="streams",
        connections=count,
        seconds=seconds,
        warm=warm,
    )


def memory(session: Session, name: str) -> Sample:
    """MB at rest, and after 20,000 requests (2,000 with --quick)."""
    session.set()
    with session.starting(name, f"{name}-anew") as server:
        rest = server.resident()
        session.load(
            server,
            contenders.request(ALL[name], 100),
            "",
            mode="count",
            connections=32,
            requests=2_000 if session.quick else 20_000,
        )
        return {"rest": rest, "after": server.resident()}


def start(session: Session, name: str) -> Sample:
    """Seconds from its start to the first 200 on /readiness."""
    with session.starting(name, f"{name}-anew") as server:
        return {"seconds": server.ready_seconds, "cpu_ms": 1000 * server.cpu()}


SIZES = BUILD / "sizes.json"


def size(session: Session, name: str) -> Sample:
    """MB of what is installed; the guide's own line once, it takes gigabytes and minutes."""
    if name == "all":
        known = json.loads(SIZES.read_text(encoding="utf-8")) if SIZES.exists() else {}
        wanted = " ".join(contenders.REQUIREMENTS["all"])
        if wanted not in known:
            home = contenders.environment("all")
            known[wanted] = contenders.installed_size(home)
            shutil.rmtree(home)
            SIZES.write_text(json.dumps(known), encoding="utf-8")
        return {"mb": known[wanted] / 1e6}
    home = ALL[name].python.parents[2]
    return {"mb": contenders.installed_size(home / ".venv", home / "src") / 1e6}


@dataclass(frozen=True)
class Workload:
    """Something that is measured the same way of several contenders."""

    measure: Measure
    names: Sequence[str]
    once: bool = False
    """Where a second measurement would find the same."""
    anew: bool = False
    """Where it asks no process that others ask."""


JSON = throughput(100, "accepted", stream=False, connections=32)
RELAYS = ("raw", "aiohttp", "httpx")

TABLE = {
    "json-100": Workload(JSON, ("direct", *RELAYS, "guide", "gateway", "litellm", *OURS)),
    "json-2000": Workload(throughput(2000, "accepted", False, 32), ("guide", *SERVICES)),
    "json-rejected": Workload(throughput(100, "rejected", False, 32), ("guide", *SERVICES)),
    "latency": Workload(latency, ("direct", "aiohttp", "httpx", *SERVICES), anew=True),
    "first": Workload(first, ("direct", "aiohttp", "httpx", "guide", *SERVICES), anew=True),
    "streams": Workload(in_turn(streams), ("aiohttp", "guide", *SERVICES), anew=True),
    "memory": Workload(in_turn(memory), ("litellm", "guide", *SERVICES), once=True, anew=True),
    "start": Workload(in_turn(start, TURNS), ("guide", *SERVICES), anew=True),
    "size": Workload(in_turn(size), ("all", "leanest", "fullest"), once=True, anew=True),
}
GRID = {
    f"{'sse' if stream else 'json'}/{chars}/{kind}/{connections}": Workload(
        throughput(chars, kind, stream, connections),
        [
            name
            for name in ("aiohttp", "httpx", "guide", "litellm", *SERVICES)
            if (kind == "accepted" or ALL[name].cascades)
            # The guide's stream knows no other way than the cascade, and takes the poor draft.
            and not (stream and name == "guide" and kind != "accepted")
        ],
    )
    for stream in (False, True)
    for chars in (100, 2000, 20000)
    for kind in ("accepted", "rejected", "direct")
    for connections in (1, 32, 128)
}


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A goal: the service's `metric` in ratio (or distance) to another's."""

    what: str
    workload: str
    metric: str
    against: str
    goal: float
    most: bool = False
    """The goal is the most that is allowed, not the least."""
    distance: bool = False
    """Milliseconds more than the other's, not times as much."""
    services: Sequence[str] = SERVICES


LINES = (
    Line("JSON, 100 characters, accepted, 32 at once", "json-100", "rate", "guide", 6),
    Line("same", "json-100", "rate", "httpx", 2),
    Line("same", "json-100", "rate", "litellm", 8),
    Line("same", "json-100", "rate", "aiohttp", 0.33),
    Line("JSON, 2,000 characters", "json-2000", "rate", "guide", 15),
    Line("JSON, rejected draft", "json-rejected", "rate", "guide", 6),
    Line("latency added to 50 ms, p50", "latency", "added_p50", "httpx", 1, most=True),
    Line("latency added to 50 ms, p99", "latency", "added_p99", "httpx", 1, most=True),
    Line("SSE, first token, p50", "first", "first_p50", "direct", 2, most=True, distance=True),
    Line("SSE, streams held", "streams", "streams", "aiohttp", 0.6),
    Line("same", "streams", "streams", "guide", 3),
    Line("memory after 20,000 requests", "memory", "after", "litellm", 0.25, most=True),
    Line("start to the first 200", "start", "seconds", "guide", 1, most=True),
    Line("installed size", "size", "mb", "all", 0.01, most=True, services=("leanest",)),
    Line("JSON, 100 characters", "json-100", "rate", "leanest", 0.7, services=("fullest",)),
    Line("same, in Redis", "json-100", "rate", "leanest", 0.7, services=("redis",)),
)
UNITS = {
    "rate": "{:,.0f} /s",
    "added_p50": "{:.2f} ms",
    "added_p99": "{:.2f} ms",
    "first_p50": "{:.2f} ms",
    "streams": "{:.0f}",
    "after": "{:.0f} MB",
    "seconds": "{:.2f} s",
    "mb": "{:,.0f} MB",
}

Samples = dict[tuple[str, str], list[Sample | None]]


def compared(line: Line, samples: Samples, ours: str) -> tuple[list[float], float, float]:
    """Of each round the ratio or distance; and both medians."""
    mine, theirs = samples[line.workload, ours], samples[line.workload, line.against]
    pairs = [
        (one[line.metric], other[line.metric])
        for one, other in zip(mine, theirs, strict=False)
        if one and other and (line.distance or other[line.metric])
    ]
    if not pairs:
        return [], float("nan"), float("nan")
    ratios = [one - other if line.distance else one / other for one, other in pairs]
    return ratios, *(statistics.median(each) for each in zip(*pairs, strict=True))


def spread(ratios: Sequence[float]) -> tuple[float, float]:
    """The middle half of the rounds."""
    if len(ratios) < 2:
        return ratios[0], ratios[0]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return low, high


def row(line: Line, samples: Samples, ours: str) -> str | None:
    if (line.workload, ours) not in samples or (line.workload, line.against) not in samples:
        return None
    ratios, mine, theirs = compared(line, samples, ours)
    by_cpu = ""
    if line.metric in ("rate", "streams", "seconds"):
        costs, _, _ = compared(replace(line, metric="cpu_ms"), samples, ours)
        if costs:
            ratio = statistics.median(costs)
            by_cpu = f"{ratio if line.most else 1 / ratio:.3g}x"
    unit = UNITS[line.metric]
    goal = f"{'at most' if line.most else 'at least'} {line.goal:g}"
    goal += " ms more" if line.distance else "x"
    start = f"| {line.what} | {ours} | {line.against} | "
    if not ratios:
        if None in (*samples[line.workload, ours], *samples[line.workload, line.against]):
            return f"{start}- | - | WRONG ANSWER | | | {goal} | **missed** |"
        return f"{start}- | - | NOISY | | {by_cpu} | {goal} | ? |"
    both = f"{unit.format(mine)} | {unit.format(theirs)} | "
    median, (low, high) = statistics.median(ratios), spread(ratios)
    # Of a distance in milliseconds: half a millisecond is what the machine's clock of sleeps gives.
    wide = high - low > (0.5 if line.distance else NOISY * abs(median))
    result = "NOISY" if wide else f"{median:+.2f} ms" if line.distance else f"{median:.3g}x"
    between = f"{low:.3g}-{high:.3g}" if len(ratios) > 1 else "once"
    verdict = judged(line, low, high)
    return f"{start}{both}{result} | {between} | {by_cpu} | {goal} | {verdict} |"


def judged(line: Line, low: float, high: float) -> str:
    """What the middle half of the rounds says of the goal, if it lies on one side of it."""
    reached = [each <= line.goal if line.most else each >= line.goal for each in (low, high)]
    return "met" if all(reached) else "?" if any(reached) else "**missed**"


def table(samples: Samples) -> Iterator[str]:
    yield (
        "| workload | service | against | service's | other's | ratio | middle half | by CPU "
        "| goal | |"
    )
    yield "|---|---|---|---:|---:|---:|---:|---:|---|---|"
    for line in LINES:
        for ours in line.services:
            if found := row(line, samples, ours):
                yield found


def details(samples: Samples) -> Iterator[str]:
    """What else was measured of the workloads that have a rate."""
    yield "| workload | contender | requests/s | p50 ms | p99 ms | CPU ms/request | a core busy |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for (workload, name), found in samples.items():
        rounds = [each for each in found if each and "rate" in each]
        if not rounds:
            if found and None in found:
                yield f"| {workload} | {name} | wrong | | | | |"
            continue

        def middle(metric: str, rounds: list[Sample] = rounds) -> float:
            return statistics.median(each[metric] for each in rounds)

        yield (
            f"| {workload} | {name} | {middle('rate'):,.0f} | {middle('latency_p50'):.2f} | "
            f"{middle('latency_p99'):.2f} | {middle('cpu_ms'):.2f} | {middle('busy'):.0%} |"
        )


def ceiling(samples: Samples) -> Iterator[str]:
    """What the upstream and the load generator could do by themselves."""
    rounds = [each for each in samples.get(("json-100", "direct"), []) if each]
    if not rounds:
        return

    def micro(metric: str) -> float:
        return statistics.median(1e6 * each[metric] / each["requests"] for each in rounds)

    load, upstream = micro("cpu"), micro("upstream")
    yield (
        f"Ceiling: the load generator takes {load:.0f} µs of a core for each request and the "
        f"upstream {upstream:.0f} µs, so beside a contender that has the other core they can do "
        f"{1e6 / (load + upstream):,.0f} requests/s."
    )


# --- the command ----------------------------------------------------------------------------------


def measure(session: Session, chosen: dict[str, Workload], rounds: int) -> Samples:
    samples: Samples = defaultdict(list)
    for label, workload in chosen.items():
        names = [name for name in workload.names if name != "redis" or session.redis]
        for name in () if workload.anew else names:
            session.server(name)
        for number in range(1 if workload.once else rounds):
            session.doing = f"{label}, round {number + 1}"
            for name, sample in workload.measure(session, names).items():
                samples[label, name].append(sample)
    typer.echo("\r\x1b[K", nl=False, err=True)
    return samples


def report(samples: Samples, rounds: int) -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join(
        [
            f"{os.cpu_count()} cores, Python {platform.python_version()}, {rounds} rounds; "
            f"load of the machine in the end: {load}. {' '.join(ceiling(samples))}",
            "",
            *table(samples),
            "",
            *details(samples),
        ]
    )


def main(
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"workloads: {', '.join(TABLE)}, or like json/2000/rejected/32"),
    ] = None,
    contender: Annotated[
        list[str] | None, typer.Option(help=f"only these: {', '.join(ALL)}")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    quick: Annotated[bool, typer.Option(help="3 rounds, half as long, no `size`")] = False,
    grid: Annotated[bool, typer.Option(help="the wider grid in place of the table")] = False,
    markdown: Annotated[Path | None, typer.Option(help="write the tables there too")] = None,
) -> None:
    """Measure the service beside other contenders, and print the table of ratios."""
    every = {**TABLE, **GRID}
    chosen = dict(GRID) if grid else {} if only else dict(TABLE)
    for pattern in only or ():
        found = fnmatch.filter(every, pattern)
        if not found:
            raise typer.BadParameter(f"no workload is called {pattern}")
        chosen |= {name: every[name] for name in found}
    if quick:
        rounds = min(rounds, 3)
        if not only:
            chosen.pop("size", None)
    if contender:
        chosen = {
            label: replace(each, names=[name for name in each.names if name in contender])
            for label, each in chosen.items()
        }
    needed = {name for each in chosen.values() for name in each.names} - {"all"}
    contenders.install(needed)
    with contextlib.ExitStack() as stack:
        session = Session(stack, quick)
        if "redis" in needed:
            session.redis = stack.enter_context(contenders.redis_server(BUILD / "run" / "store"))
        session.start_upstream()
        found = report(measure(session, chosen, rounds), rounds)
    typer.echo(found)
    if markdown:
        markdown.write_text(f"{found}\n", encoding="utf-8")
    if "**missed**" in found:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
