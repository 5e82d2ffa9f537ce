"""A replay gives way to live readings: it judges at lower priority, and leaves the priority of its process as it was."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from cluster.replay import jobs


def test_what_judges_history_has_a_lower_priority_than_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before, seen = priority(), []
    monkeypatch.setattr(jobs, "judge_part", lambda *_: seen.append(priority()) or {"readings": 1})
    monkeypatch.setattr(jobs.Place, "of", lambda location: location)
    assert jobs._task._function({}, None, "") == {"readings": 1}
    lower = max(before, jobs.NICE) if sys.platform == "linux" else before  # elsewhere threads have no priority of their own
    assert seen == [lower]
    assert priority() == before
