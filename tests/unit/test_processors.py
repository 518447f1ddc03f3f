"""How many processors there are: affinity, and quotas of control groups of both versions, inside containers or not."""

from __future__ import annotations

import os

import pytest

from minislm import processors


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that says which files a machine of 64 processors has, and counts them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(processors, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(processors, "MEMBERSHIP", tmp_path / "membership")

    def count(membership, files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return processors.available_processors()

    return count


V1 = "4:cpu,cpuacct:/docker/ab:c\n3:cpuset:/docker/ab:c\n1:name=systemd:/docker/ab:c\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n", "a/cpu.max": "300000 100000\n"}, 2),
        ("0::/not/in/the/container\n", {"cpu.max": "400000 100000\n"}, 4),
        (V1, {"cpu,cpuacct/docker/ab:c/cpu.cfs_quota_us": "-1\n"}, 64),
        (
            V1,
            {
                "cpu,cpuacct/docker/ab:c/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/docker/ab:c/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "50000\n"}, 1),
        (V1 + "0::/\n", {"unified/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 64),
        ("0::/\n", {}, 64),
    ],
)
def test_quotas(machine, membership, files, expected):
    assert machine(membership, files) == expected


def test_without_control_groups_affinity_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(processors, "MEMBERSHIP", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5}, raising=False)
    assert processors.available_processors() == 2
