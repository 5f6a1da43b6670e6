"""The measurements. Each loads the proxies in turn and gives raw figures by proxy name."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

import harness
from harness import Absent, Fault, Late, Load

SMALL, LARGE, STREAM = (1024, False), (32 * 1024, False), (1024, True)
ENDLESS = 1_000_000  # events: longer than any measurement


def in_turn(proxies, rounds, measure):
    """name -> one result a round; who comes first changes from round to round."""
    results = {p.name: [] for p in proxies}
    for number in range(rounds):
        shift = number % len(proxies)
        for proxy in proxies[shift:] + proxies[:shift]:
            results[proxy.name].append(measure(proxy))
    return results


def clean(proxy, figures):
    if figures["errors"] or figures["reconnects"]:
        raise Fault(f"{proxy.name}: {figures['errors']} errors and {figures['reconnects']} lost connections under load; "
                    f"last words: {proxy.last_words()}")
    return figures


def window(proxy, load, seconds):
    """An interval of steady load: what was answered, and what it cost the proxy."""
    pids = proxy.pids()
    load.mark()
    before, split_before, core_before = harness.cpu_ns(pids), harness.split_ms(pids), harness.core_busy_s(proxy.core)
    time.sleep(seconds)
    figures = clean(proxy, load.mark())
    after, split_after, core_after = harness.cpu_ns(pids), harness.split_ms(pids), harness.core_busy_s(proxy.core)
    user, system = (b - a for a, b in zip(split_before, split_after))
    if not figures["requests"] + figures["events"] or after == before:
        raise Late(f"{proxy.name}: answered nothing in {seconds} s, or in no time that the kernel accounts for")
    figures["cpu_us"] = (after - before) / 1000
    figures["busy"] = figures["cpu_us"] / 1e6 / figures["seconds"]
    figures["others"] = max(0.0, (core_after - core_before) / figures["seconds"] - figures["busy"])
    figures["user_share"] = user / (user + system) if user + system else None
    return figures


def requests(bench, proxies, body):
    """Closed loop: processor time a request, requests a second."""
    def measure(proxy):
        with Load(bench, proxy, body, bench.plan.connections) as load:
            time.sleep(bench.plan.warm_s)
            figures = window(proxy, load, bench.plan.window_s)
        figures["cpu_us_per_request"] = figures["cpu_us"] / figures["requests"]
        figures["requests_per_s"] = figures["requests"] / figures["seconds"]
        return figures
    return in_turn(proxies, bench.plan.rounds, measure)


def from_cache(proxy, upstream):
    """Has it kept its answer by now?"""
    before = upstream.stats()["requests"]
    return proxy.first_answer() and upstream.stats()["requests"] == before


def hits(bench, proxies, upstream):
    """The same from a cache: no request may reach the upstream."""
    for proxy in proxies:
        harness.wait_for(lambda p=proxy: from_cache(p, upstream), f"{proxy.name}: an answer from its cache")
    before = upstream.stats()["requests"]
    figures = requests(bench, proxies, SMALL)
    asked = upstream.stats()["requests"] - before
    if asked:
        raise Fault(f"{asked} requests were not answered from a cache")
    return figures


def latency(bench, proxies, direct):
    """Paced load; what a proxy adds is its quantile less that of the direct way in the same round."""
    def measure(target):
        with Load(bench, target, SMALL, bench.plan.connections, rate=bench.plan.rate) as load:
            time.sleep(bench.plan.warm_s)
            load.mark()
            time.sleep(bench.plan.paced_s)
            return clean(target, load.mark())
    return in_turn([*proxies, direct], bench.plan.rounds, measure)


def open_streams(load, count):
    harness.wait_for(lambda: load.mark()["open"] == count, f"{count} open streams", 120, pause_s=0.1)


def events(bench, proxies, upstream):
    """Processor time an event, with many streams at a steady pace."""
    plan = bench.plan

    def measure(proxy):
        upstream.pace(ENDLESS, plan.events_rate)
        with Load(bench, proxy, STREAM, plan.streams) as load:
            open_streams(load, plan.streams)
            time.sleep(plan.warm_s)
            figures = window(proxy, load, plan.window_s)
        figures["cpu_us_per_event"] = figures["cpu_us"] / figures["events"]
        figures["events_per_s"] = figures["events"] / figures["seconds"]
        return figures
    return in_turn(proxies, plan.rounds, measure)


def settle_pace(bench, proxy, upstream):
    """Halves the events a second until load and upstream keep up with them on their one core."""
    while True:
        upstream.pace(ENDLESS, bench.plan.events_rate)
        with Load(bench, proxy, STREAM, bench.plan.streams) as load:
            open_streams(load, bench.plan.streams)
            time.sleep(bench.plan.warm_s)
            figures = window(proxy, load, 1)
        wanted = bench.plan.streams * bench.plan.events_rate
        if figures["events"] / figures["seconds"] >= 0.9 * wanted or bench.plan.events_rate <= 5:
            return
        bench.plan.events_rate //= 2


def memory(bench, make, upstream):
    """A fresh proxy: its start, its memory after the first answer, and with many streams open."""
    plan, starts = bench.plan, []
    proxy = make()
    try:
        for _ in range(plan.starts):
            proxy.stop()
            starts.append(proxy.start())
        time.sleep(plan.warm_s)
        idle = harness.memory_kib(proxy.pids())
        upstream.pace(ENDLESS, 1)
        with Load(bench, proxy, STREAM, plan.memory_streams) as load:
            open_streams(load, plan.memory_streams)
            time.sleep(1 + plan.warm_s)  # each stream has had an event
            full = harness.memory_kib(proxy.pids())
    finally:
        proxy.stop()
    return {"start_ms": starts, "idle_kib": idle, "open_kib": full, "streams": plan.memory_streams,
            "stream_kib": (full["rss"] - idle["rss"]) / plan.memory_streams}


def counted_load(bench, proxy, upstream, what, count):
    """
    <count> requests one after the other, or one stream of <count> events; nothing else. Streams take the same time
    whatever their events, so that what a proxy does by the clock cancels out too.
    """
    if what == "event":
        upstream.pace(count, count // bench.plan.counted_s)
    with Load(bench, proxy, STREAM if what == "event" else SMALL, 1, requests=1 if what == "event" else count) as load:
        return clean(proxy, load.finish())


def worker_of(bench, proxy, upstream):
    """The process of a proxy that serves requests: the one that a few of them keep busy."""
    before = {pid: harness.cpu_ns([pid]) for pid in proxy.pids()}
    counted_load(bench, proxy, upstream, "request", 100)
    return max(before, key=lambda pid: harness.cpu_ns([pid]) - before[pid])


def strace_calls(bench, proxy, upstream, what, count):
    """System calls of the worker during <count> requests or events: {name: calls}."""
    report = os.path.join(bench.dir, "strace.txt")
    worker = worker_of(bench, proxy, upstream)
    tracer = harness.spawn([bench.strace, "-f", "-c", "-U", "calls,name", "-o", report, "-p", str(worker)],
                           bench.load_core, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    def attached():
        if tracer.poll() is not None:
            raise Fault(f"strace: {tracer.stderr.read().decode(errors='replace').strip()}")
        with open(f"/proc/{worker}/status") as f:
            return re.search(r"^TracerPid:\t[1-9]", f.read(), re.M)
    try:
        harness.wait_for(attached, "strace: attach", 60)
        counted_load(bench, proxy, upstream, what, count)
        tracer.send_signal(signal.SIGINT)
        tracer.wait(60)
    except subprocess.TimeoutExpired:
        raise Late("strace: did not end") from None
    finally:
        harness.end(tracer)
        tracer.stderr.close()
    with open(report) as f:
        rows = re.findall(r"^\s*(\d+)\s+(\w+)\s*$", f.read(), re.M)
    return {name: int(calls) for calls, name in rows}


def syscalls(bench, proxy, upstream, what):
    """
    {"total": .., "by_name": {..}} a request or an event, on the worker of a running proxy: the difference of a
    long run and a short one, in which what it takes to connect cancels out.
    """
    counts = bench.plan.counts[what]
    short, long = (strace_calls(bench, proxy, upstream, what, n) for n in counts)
    names = {n: (long.get(n, 0) - short.get(n, 0)) / (counts[1] - counts[0]) for n in long if n != "total"}
    by_name = {n: round(v, 3) for n, v in sorted(names.items(), key=lambda i: -i[1]) if round(v, 2) != 0}
    return {"total": sum(names.values()), "by_name": by_name}


def callgrind_totals(bench, make, upstream, what, count):
    """User instructions of each process of a proxy from its start to its end, in the order of their starts."""
    proxy = make()
    out = os.path.join(proxy.dir, "callgrind")
    os.makedirs(out)
    os.chmod(out, 0o777)  # workers may have given up their rights
    wrapper = [bench.valgrind, "-q", "--tool=callgrind", "--trace-children=yes", f"--callgrind-out-file={out}/%p"]
    try:
        proxy.start(wrapper)
        counted_load(bench, proxy, upstream, what, count)
    finally:
        proxy.stop(60)
    totals = []
    for name in sorted(os.listdir(out), key=int):
        with open(os.path.join(out, name), errors="replace") as f:
            totals += [int(n) for n in re.findall(r"^totals: (\d+)", f.read(), re.M)]
    if not totals:
        raise Late(f"callgrind left no figures for {proxy.name}: {proxy.last_words()}")
    return totals


def instructions(bench, make, upstream, what):
    """A request's or an event's, on the worker: the process whose long run differs most from its short one."""
    counts = bench.plan.counts[what]
    short, long = (callgrind_totals(bench, make, upstream, what, n) for n in counts)
    if len(short) != len(long):  # one was started late, or killed before it had written
        raise Late(f"callgrind saw {len(short)} processes in the short run and {len(long)} in the long one")
    return max(b - a for a, b in zip(short, long)) / (counts[1] - counts[0])


def end_to_end(bench, name):
    """What an end-to-end test prints as its figures: a list of objects."""
    tests = os.path.join(bench.root, "tests")
    if not os.path.isdir(os.path.join(tests, "node_modules")):
        raise Absent("the tests' packages are missing: run npm ci in tests/")
    done = subprocess.run([bench.node, f"e2e/{name}.test.mjs"], cwd=tests, env={**os.environ, "WEIR_BIN": bench.weir},
                          capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise Fault(f"e2e/{name}.test.mjs: exit status {done.returncode}: {done.stdout.strip()[-300:]}")
    return [json.loads(line) for line in re.findall(rf"^# figures {name} (.*)$", done.stdout, re.M)]


def scan(bench):
    """GB/s of each bench ("scan", "canon") by the shape of a body of 1 MB, as bench_scan reports it."""
    done = subprocess.run([bench.tool("bench_scan")], capture_output=True, text=True, timeout=120)
    if done.returncode != 0 or not done.stdout:
        raise Fault(f"bench_scan: exit status {done.returncode}: {done.stderr.strip()[:200]}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {bench: {line["shape"]: line["gb_per_s"] for line in lines if line["bench"] == bench} for bench in ("scan", "canon")}


def alone(bench, program):
    """Figures of one module alone, by name, as its program reports them: ns, us, ms and ratios."""
    done = subprocess.run([bench.tool(program), str(bench.plan.alone_rounds)], capture_output=True, text=True, timeout=300)
    if done.returncode != 0 or not done.stdout:
        raise Fault(f"{program}: exit status {done.returncode}: {done.stderr.strip()[:200]}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["name"]: line["value"] for line in lines}


CACHE_ENTRY_BYTES = 12416  # of 10,000, in whole pages, with its rows


def cache(bench):
    """Figures of a look-up in the response cache, by name, as bench_cache reports them: ns and ratios."""
    entries = bench.plan.cache_entries
    want = entries * CACHE_ENTRY_BYTES * 5 // 4 + (1 << 28)
    with open("/proc/meminfo") as f:
        memory = next(int(line.split()[1]) for line in f if line.startswith("MemAvailable:")) * 1024
    for what, have in (("disk", shutil.disk_usage(bench.dir).free), ("memory", memory)):
        if have < want:
            raise Absent(f"{entries:,} entries want {want / 1e9:.1f} GB of {what}, {have / 1e9:.1f} are free")
    done = subprocess.run([bench.tool("bench_cache"), bench.dir, str(entries), "10000", str(bench.plan.cache_rounds)],
                          capture_output=True, text=True, timeout=1800)
    if done.returncode != 0 or not done.stdout:
        raise Fault(f"bench_cache: exit status {done.returncode}: {done.stderr.strip()[:200]}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["name"]: line["value"] for line in lines if "value" in line}
