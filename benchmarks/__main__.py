"""Measure PetSage beside its peers and print a table: `python -m benchmarks --help`."""

import argparse
import os
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.further import measure_further
from benchmarks.measure import Plan, Round, measure_round, rehearse
from benchmarks.page import write_page
from benchmarks.report import Run, as_json, as_markdown, as_text, this_machine
from benchmarks.servers import QUICK, SERVERS

# Of each further operation: there are many.
_FURTHER_S = 1


def main() -> int:
    """Measure as the command line says; 0 where the run counts, 1 where it is void."""
    options = _options()
    # Where a shell has begun this in the background, servers would inherit that it is ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # What a shell or make has left open: where its number is high, the kernel makes a larger table
    # of descriptors for wrk, too, and PetSage's p99 was 2.7 ms and not 2.1 (docs/decisions/0009).
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    try:
        plan = _plan(options)
        rounds = _measure(options.servers, plan)
        further = measure_further(replace(plan, seconds=_FURTHER_S)) if options.further else []
        command = shlex.join(("python", "-m", "benchmarks", *sys.argv[1:]))
        run = Run(this_machine(), plan, rounds, further, command)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    print(as_text(run))
    if options.json:
        options.json.write_text(as_json(run))
    if options.markdown:
        options.markdown.write_text(as_markdown(run))
    if run.void:
        return 1
    if options.docs:
        write_page(run, options.docs)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=_positive, default=5, help="rounds of each server (%(default)s)")
    add("--seconds", type=_positive, default=4, help="seconds of each round (%(default)s)")
    add("--warmup", type=_positive, default=1, help="seconds of load before it (%(default)s)")
    add("--connections", type=_positive, default=64, help="wrk's connections (%(default)s)")
    add(
        "--servers",
        nargs="*",
        choices=("all", *SERVERS),
        default=list(QUICK),
        metavar="NAME",
        help=f"which servers: all, or some of {', '.join(SERVERS)} ({', '.join(QUICK)})",
    )
    add("--further", action="store_true", help="also measure what the smoke test does not show")
    add("--json", type=Path, metavar="FILE", help="also write every figure there")
    add("--markdown", type=Path, metavar="FILE", help="also write the report there")
    add("--docs", type=Path, metavar="FILE", help="also write the page and its picture there")
    options = parser.parse_args()
    if options.docs and not ("all" in options.servers and options.further):
        parser.error("--docs is of all that can be measured: add --servers all --further")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _plan(options: argparse.Namespace) -> Plan:
    """What to do, on the first and the last of the cores that we may use; we stay on the first."""
    if not hasattr(os, "sched_setaffinity"):
        raise BenchmarkError(
            f"{sys.platform} cannot pin a process to a core", fix="run this on Linux"
        )
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("only one core is there", fix="give wrk and the server one each")
    os.sched_setaffinity(0, {cores[0]})
    return Plan(
        rounds=options.rounds,
        seconds=options.seconds,
        warmup_s=options.warmup,
        connections=options.connections,
        server_core=cores[-1],
        client_core=cores[0],
    )


def _measure(names: list[str], plan: Plan) -> list[Round]:
    """All rounds, the servers taking turns, each time another one first."""
    servers = [SERVERS[name] for name in dict.fromkeys(SERVERS if "all" in names else names)]
    for server in servers:
        rehearse(server, plan)
    rounds = []
    for number in range(1, plan.rounds + 1):
        first = (number - 1) % max(len(servers), 1)
        for server in servers[first:] + servers[:first]:
            measured = measure_round(server, number, plan)
            rounds.append(measured)
            print(
                f"round {number} of {plan.rounds}  {server.name:18}"
                f" {measured.cpu_us:6.1f} µs  {measured.requests_per_s:9,.0f} requests/s"
                f"  {'VOID' if measured.faults else ''}",
                file=sys.stderr,
            )
    order = {server.name: place for place, server in enumerate(servers)}
    return sorted(rounds, key=lambda each: (order[each.server], each.number))


if __name__ == "__main__":
    sys.exit(main())
