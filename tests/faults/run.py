"""One run: gateways stream, the driver kills, everything drains, and the judge says what is left of the promises."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.chaos import Chaos
from tests.faults.counters import Counters
from tests.faults.cycles import Cycle, summary, too_little
from tests.faults.judge import Verdict, judge
from tests.faults.system import System
from tests.faults.world import World

READY_S = 600.0


@dataclass
class Plan:
    """What a run does."""

    kinds: list[str]
    duration_s: float
    seed: int = 1
    cycles: int = 0
    """End sooner when so many kills counted (and `readings` are acknowledged); 0: only by the clock."""
    least_cycles: int = 0
    """Go on past `duration_s` until so many kills counted."""
    readings: int = 0
    """Go on past `duration_s` until so many readings are acknowledged."""
    world: dict[str, Any] = field(default_factory=dict)
    window: int = 4
    readings_per_s: float = 20_000.0
    drain_s: float = 120.0
    enough: threading.Event = field(default_factory=threading.Event)
    """Set it to have the chaos end now, and what there is judged."""


@dataclass
class Report:
    """What came of it."""

    verdict: Verdict
    cycles: list[Cycle]
    seconds: float
    refusals: int
    gateway_error: str = ""
    kinds: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every promise was kept and everything came back."""
        return self.verdict.sound and not self.gateway_error and all(cycle.recovered for cycle in self.cycles)

    @property
    def too_little(self) -> list[str]:
        """What a long run was to show and did not show enough of."""
        return too_little(self.kinds, self.cycles, self.verdict.share_in_excursions)

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "sound": self.sound,
            "too_little": self.too_little,
            "seconds": round(self.seconds, 1),
            "cycles": summary(self.cycles),
            "counted_cycles": sum(1 for cycle in self.cycles if cycle.counts),
            "refusals": self.refusals,
            "gateway_error": self.gateway_error,
            **asdict(self.verdict),
        }

    def text(self) -> str:
        """For people."""
        verdict = self.verdict
        lines = [
            f"{'kind':<12}{'cycles':>8}{'mid-commit':>12}{'unacked':>9}{'median s':>10}{'longest s':>11}",
            *(
                f"{kind:<12}{row['cycles']:>8}{row['between_write_and_commit']:>12}{row['written_and_unacknowledged']:>9}"
                f"{row['median_outage_s']:>10.2f}{row['longest_outage_s']:>11.2f}"
                for kind, row in summary(self.cycles).items()
            ),
            f"{verdict.acknowledged:,} readings acknowledged in {self.seconds:.0f} s, {verdict.share_in_excursions:.0%} in excursions;"
            f" {verdict.excursions:,} excursions, {verdict.events:,} events, {verdict.alert_events_seen:,} seen by the subscriber",
            f"lost {verdict.lost}, doubled {verdict.doubled}, never sent {verdict.foreign}, differing excursions"
            f" {verdict.differing_excursions}, differing sums {verdict.differing_sums}, alerts missed {verdict.alerts_missed},"
            f" alerts twice {verdict.alerts_twice}, writes of superseded owners {verdict.superseded_writes}",
            f"of {verdict.visits:,} visits {verdict.differing_visits} differ, of {verdict.conflicts:,} conflicts"
            f" {verdict.differing_conflicts}, of {verdict.flags:,} quality flags {verdict.differing_flags}, tags with differing"
            f" counters {verdict.differing_counters}",
            *verdict.problems,
            *([f"the gateways ended with: {self.gateway_error}"] if self.gateway_error else []),
            *(f"too little: {line}" for line in self.too_little),
            "sound" if self.sound else "NOT SOUND",
        ]
        return "\n".join(lines)


def run(system: System, folder: Path, plan: Plan, say: Callable[[str], None] = lambda line: None) -> Report:
    """Carry out a plan against a running system; `folder` is new and takes the gateways' logs."""
    folder.mkdir(parents=True)
    world = {"seed": plan.seed, **plan.world}
    World(**world)
    told = {"world": world, "shards": system.shards, "window": plan.window, "readings_per_s": plan.readings_per_s, "target": system.target}
    (folder / "gateway.json").write_text(json.dumps(told))
    counters = Counters(folder / "counters.bin", create=True)
    begun = time.monotonic()
    with open(folder / "gateway.log", "ab") as log:
        gateway = subprocess.Popen([sys.executable, "-m", "tests.faults.gateway", str(folder)], stdout=log, stderr=log)
    driver = Chaos(system, counters, plan.kinds, plan.seed)
    driver.log = say
    driver.over = lambda: gateway.poll() is not None
    error = ""
    try:
        _wait(gateway, lambda: (folder / "ready").exists(), READY_S)
        _wait(gateway, lambda: counters.acknowledged > 0, READY_S)
        _disturb(driver, gateway, plan)
        say("draining")
        (folder / "stop").touch()
        _wait(gateway, lambda: (folder / "drained").exists(), plan.drain_s)
        (folder / "last_event.part").write_text(str(system.newest_event()))
        (folder / "last_event.part").rename(folder / "last_event")
        _wait(gateway, lambda: gateway.poll() is not None, plan.drain_s)
    except GatewayEnded as ended:
        error = str(ended)
    finally:
        if gateway.poll() is None:
            gateway.kill()
        gateway.wait()
    if gateway.returncode and not error:
        error = (folder / "gateway.log").read_text()[-1500:]
    seconds = time.monotonic() - begun
    if not (folder / "stopped.json").exists():  # it was stopped before it had said where; nothing was begun after this
        verdict = Verdict(problems=["the gateways did not come to an end; there is nothing to hold the journal against"])
    else:
        say("judging")
        verdict = judge(folder, system.database_url, driver.takeovers)
    return Report(verdict, driver.cycles, seconds, counters.refusals, error, plan.kinds)


class GatewayEnded(Exception):
    """The gateways ended, or did not do what they should in time."""


def _disturb(driver: Chaos, gateway: subprocess.Popen[bytes], plan: Plan) -> None:
    """Kill, until the plan is fulfilled: one with `cycles` ends then or by the clock, another when both have come."""
    until = time.monotonic() + plan.duration_s
    most = plan.cycles or plan.least_cycles
    while not plan.enough.is_set() and gateway.poll() is None:
        counted = sum(1 for cycle in driver.cycles if cycle.counts)
        done = counted >= most and driver.counters.acknowledged >= plan.readings
        late = time.monotonic() >= until
        if (done or late) if plan.cycles else (done and late):
            return
        if plan.kinds and (counted < most or not most):
            driver.step()
        else:
            time.sleep(0.1)


def _wait(gateway: subprocess.Popen[bytes], done: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not done():
        if gateway.poll() is not None:
            if gateway.returncode == 0 and done():
                return
            raise GatewayEnded(_log(gateway))
        if time.monotonic() > deadline:
            gateway.send_signal(signal.SIGUSR1)  # it writes down where it stands
            time.sleep(1)
            raise GatewayEnded(f"nothing came of it within {patience_s:g} s; {_log(gateway)}")
        time.sleep(0.02)


def _log(gateway: subprocess.Popen[bytes]) -> str:
    """The end of what the gateways said."""
    return Path(str(gateway.args[-1]), "gateway.log").read_text()[-1500:]  # type: ignore[index]
