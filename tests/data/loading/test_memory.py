"""How much memory is available: the machine's figure, held down by the limit of any control group above the process."""

from __future__ import annotations

import os
import sys

import pytest

from aleatoric.data.loading.memory import available_memory

GB = 10**9


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def machine(kilobytes):
    return {"proc/meminfo": f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable:   {kilobytes} kB\n"}


def version_2(folder, limit, used, active=0, inactive=0):
    top = f"sys/fs/cgroup{folder}"
    return {
        f"{top}/memory.max": f"{limit}\n",
        f"{top}/memory.current": f"{used}\n",
        f"{top}/memory.stat": f"anon 5\nactive_file {active}\ninactive_file {inactive}\n",
    }


def test_the_machine_alone(tmp_path):
    assert available_memory(write(tmp_path, machine(3_000_000))) == 3_072_000_000


def test_version_2_the_page_cache_can_be_had_back(tmp_path):
    write(tmp_path, {**machine(9 * 10**6), "proc/self/cgroup": "0::/a/b\n"})
    write(tmp_path, version_2("/a/b", 4 * GB, 3 * GB, active=GB // 2, inactive=GB))
    assert available_memory(tmp_path) == 2.5 * GB
    write(tmp_path, version_2("/a", 3 * GB, 2 * GB))  # the limit of a parent holds too
    assert available_memory(tmp_path) == GB
    write(tmp_path, version_2("", "max", 2 * GB))
    assert available_memory(tmp_path) == GB
    write(tmp_path, version_2("/a", 3 * GB, 4 * GB))  # lowered below what is used
    assert available_memory(tmp_path) == 0
    write(tmp_path, {**version_2("/a", "max", GB), **version_2("/a/b", "max", GB)})
    assert available_memory(tmp_path) == 9 * 1024 * 10**6


def test_a_container_sees_its_own_group_as_the_top(tmp_path):
    write(tmp_path, {**machine(9 * 10**6), "proc/self/cgroup": "0::/../../docker/0123\n"})
    write(tmp_path, version_2("", 2 * GB, GB))
    assert available_memory(tmp_path) == GB


def test_version_1_counts_the_groups_below(tmp_path):
    top = "sys/fs/cgroup/memory/job"
    write(tmp_path, {**machine(9 * 10**6), "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/job\n0::/\n"})
    write(
        tmp_path,
        {
            f"{top}/memory.limit_in_bytes": f"{4 * GB}\n",
            f"{top}/memory.usage_in_bytes": f"{3 * GB}\n",
            f"{top}/memory.stat": f"active_file 0\ninactive_file 0\ntotal_active_file 7\ntotal_inactive_file {GB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GB}\n",
            "sys/fs/cgroup/memory/memory.stat": "",
        },
    )
    assert available_memory(tmp_path) == 2 * GB + 7


def test_without_linux_files_some_of_the_physical_memory(tmp_path, monkeypatch):
    def sysconf(name):
        known = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096, **more}
        if name not in known:
            raise ValueError("unrecognized configuration name")
        return known[name]

    monkeypatch.setattr(os, "sysconf", sysconf, raising=False)
    more = {"SC_AVPHYS_PAGES": 300}
    assert available_memory(tmp_path) == 300 * 4096
    more = {}
    assert available_memory(tmp_path) == 500 * 4096
    monkeypatch.delattr(os, "sysconf")  # Windows
    assert available_memory(tmp_path) == 4 * GB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with Linux's sysconf")
def test_here():
    assert 0 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
