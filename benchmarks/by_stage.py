"""Where does the time of a request go?

    python benchmarks/by_stage.py [--variant fullest] [--chars 2000] [--functions 10]

Boots the service that benchmarks/compare.py measures, 32 clients at once, and looks 500 times a
second of its processor time where it is. Prints, for each stage, the microseconds of a request.
"""

import contextlib
import json
import signal
import time
from collections import Counter
from typing import Annotated

import compare
import contenders
import typer
from contenders import ALL, BUILD, HERE


def main(
    variant: Annotated[str, typer.Option(help="leanest, fullest or redis")] = "leanest",
    chars: int = 100,
    kind: str = "accepted",
    stream: Annotated[bool, typer.Option(help="a stream, in place of a whole answer")] = False,
    seconds: float = 6.0,
    functions: Annotated[int, typer.Option(help="print so many functions of each stage")] = 0,
) -> None:
    """Print how much of a request's processor time each stage takes."""
    contender = ALL[variant]
    contenders.install({variant})
    samples = BUILD / "run" / "samples.json"
    with contextlib.ExitStack() as stack:
        redis = ""
        if variant == "redis":
            redis = stack.enter_context(contenders.redis_server(BUILD / "run" / "store"))
        upstream = stack.enter_context(
            contenders.running(ALL["direct"], 0, BUILD / "run" / "upstream")
        )
        session = compare.Session(stack, quick=True, upstream=upstream.port, redis=redis)
        sampled = [str(contender.python), str(HERE / "apps" / "sampled.py"), str(samples)]
        with contenders.running(
            contender, upstream.port, BUILD / "run" / "sampled", redis, instead=sampled
        ) as server:
            session.servers[variant] = server
            asked = contenders.request(contender, chars, kind, stream)
            warm: dict[str, object] = {"mode": "count", "connections": 32, "requests": 500}
            session.load(server, asked, "", **warm)
            server.process.send_signal(signal.SIGUSR2)
            time.sleep(0.1)
            found = session.load(
                server, asked, "", mode="closed", connections=32, seconds=seconds, warm=0.0
            )
    show(json.loads(samples.read_text(encoding="utf-8")), found["cpu_ms"], functions)


def show(samples: list[tuple[str, str, int]], cpu_ms: float, functions: int) -> None:
    stages: Counter[str] = Counter()
    for stage, _, count in samples:
        stages[stage] += count
    each = 1000 * cpu_ms / stages.total()
    typer.echo("| stage | µs | share |\n|---|---:|---:|")
    for stage, count in stages.most_common():
        typer.echo(f"| {stage} | {count * each:.0f} | {count / stages.total():.0%} |")
        parts = [(n, where) for name, where, n in samples if name == stage]
        for n, where in sorted(parts, reverse=True)[:functions]:
            typer.echo(f"|   {where} | {n * each:.0f} | |")
    typer.echo(f"| **all** | **{1000 * cpu_ms:.0f}** | |")


if __name__ == "__main__":
    typer.run(main)
