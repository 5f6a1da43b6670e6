"""From raw figures to medians, ratios, one table and one JSON object."""
import json
import os
import platform
import re
import statistics
import subprocess

import earlier


def medians(rounds, name):
    return {proxy: statistics.median(r[name] for r in results) for proxy, results in rounds.items()}


def ratio(rounds, name, of="weir", to="nginx"):
    """The median of the ratios within each round: what slows a whole round cancels out."""
    return statistics.median(a[name] / b[name] for a, b in zip(rounds[of], rounds[to]))


def spread(rounds, name):
    """How far nginx is from its twin: the smallest and the largest ratio in a round."""
    all_of = [a[name] / b[name] for a, b in zip(rounds["nginx2"], rounds["nginx"])]
    return min(all_of), max(all_of)


def added(rounds, name):
    """proxy -> median of its quantile less that of the direct way in the same round."""
    return {proxy: statistics.median(a[name] - d[name] for a, d in zip(results, rounds["direct"]))
            for proxy, results in rounds.items() if proxy != "direct"}


def first_line(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().splitlines()[0]


def build_type(build):
    with open(os.path.join(build, "meson-info", "intro-buildoptions.json")) as f:
        options = {o["name"]: o["value"] for o in json.load(f)}
    return {"buildtype": options["buildtype"], "optimization": options["optimization"], "sanitize": options["b_sanitize"]}


def others_share(whole):
    """The share of the proxy's core that went to work that is not ours."""
    shares = [r["others"] for section in ("request_1k", "request_32k", "event") for results in whole.raw.get(section, {}).values()
              for r in results]
    return round(statistics.median(shares), 3) if shares else None


def conditions(bench, whole):
    with open("/proc/cpuinfo") as f:
        model = re.search(r"^model name\s*:\s*(.*)$", f.read(), re.M)
    return {
        "cpu": model.group(1) if model else platform.machine(), "cores_online": os.cpu_count(),
        "core_proxy": bench.proxy_core, "core_load": bench.load_core, "kernel": platform.release(),
        "nginx": first_line(bench.nginx, "-v"), "build": build_type(bench.build), "plan": vars(bench.plan),
        "others_share": others_share(whole),
    }


def figures(bench, whole):
    """The keys that checks read, and the raw figures beside them. A key whose section did not run is null."""
    raw, out = whole.raw, {}
    for key, section, name in (("request_cpu_ratio", "request_1k", "cpu_us_per_request"),
                               ("request_cpu_ratio_32k", "request_32k", "cpu_us_per_request"),
                               ("tls_cpu_ratio", "tls_1k", "cpu_us_per_request"),
                               ("tls_cpu_ratio_32k", "tls_32k", "cpu_us_per_request"),
                               ("event_cpu_ratio", "event", "cpu_us_per_event")):
        there = section in raw
        out[key] = round(ratio(raw[section], name), 3) if there else None
        out[key + "_noise"] = [round(x, 3) for x in spread(raw[section], name)] if there else None
    for quantile in ("p50", "p99"):
        extra = added(raw["paced"], quantile + "_us") if "paced" in raw else None
        out[f"added_{quantile}_us"] = {k: round(v, 1) for k, v in extra.items()} if extra else None
        usable = extra and extra["nginx"] > 0
        out[f"added_{quantile}_ratio"] = round(extra["weir"] / extra["nginx"], 3) if usable else None
    memory = raw.get("memory_weir")
    out["stream_kib"] = round(memory["stream_kib"], 2) if memory else None
    out["idle_mib"] = round(memory["idle_kib"]["rss"] / 1024, 2) if memory else None
    out["start_ms"] = round(statistics.median(memory["start_ms"]), 1) if memory else None
    ledger = raw.get("ledger", {})
    for key, name, divisor in (("ledger_pair_us", "alone", 1000), ("ledger_contended_us", "contended", 1000),
                               ("ledger_contended_p999_us", "contended_p999", 1), ("ledger_million_ratio", "million_ratio", 1),
                               ("ledger_million_unfetched_ratio", "million_ratio_unfetched", 1),
                               ("ledger_million_late_ratio", "million_ratio_late", 1), ("ledger_recovery_ms", "recovery_of_1000", 1)):
        out[key] = round(ledger[name] / divisor, 3) if name in ledger else None
    health = raw.get("health", {})
    for name in ("look_absent", "look_healthy", "success_healthy"):
        out[f"health_{name}_ns"] = health.get(name)
    for name in ("scan", "canon"):
        out[f"{name}_gb_per_s"] = min(raw["scan"][name].values()) if "scan" in raw else None
    for what in ("request", "request_claude_code", "event"):
        for name, key in (("weir", what), ("nginx", f"nginx_{what}")):
            count = raw.get(f"{what}_instructions_{name}")
            calls = raw.get(f"{what}_syscalls_{name}")
            out[f"{key}_instructions"] = round(count) if count is not None else None
            if what != "request_claude_code":
                out[f"{key}_syscalls"] = round(calls["total"], 2) if calls else None
    out.update(conditions=conditions(bench, whole), missing=whole.missing, failed=whole.failed, raw=raw)
    return out


def number(value):
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


class Table:
    def __init__(self):
        self.rows = []

    def row(self, what, weir, nginx, rated=None, noise=None, bar="", met=None):
        if weir is None:
            return
        noise = f"{noise[0]:.2f}-{noise[1]:.2f}" if noise else ""
        verdict = "" if met is None else "met" if met else "MISSED"
        self.rows.append((what, number(weir), number(nginx), number(rated) if rated is not None else "", noise, bar, verdict))

    def render(self):
        head = ("", "weir", "nginx", "ratio", "nginx/nginx", "bar", "")
        widths = [max(len(r[i]) for r in [head, *self.rows]) for i in range(len(head))]
        lines = []
        for row in [head, *self.rows]:
            cells = [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:6], widths[1:6])] + [row[6]]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def cpu_row(table, whole, out, what, section, name, key, limit):
    if section not in whole.raw:
        return
    m = medians(whole.raw[section], name)
    table.row(what, m["weir"], m["nginx"], out[key], out[key + "_noise"],
              f"<= {limit} x" if limit else "", out[key] <= limit if limit else None)


def exact_row(table, out, what, key, limit):
    value, peer = out[key], out["nginx_" + key]
    table.row(what, value, peer, value / peer if value is not None and peer else None, None, f"<= {limit:,}" if limit else "",
              value is not None and value <= limit if limit else None)


def paced_rows(table, whole, out):
    if "paced" not in whole.raw:
        return
    for quantile in ("p50", "p99"):
        extra = out[f"added_{quantile}_us"]
        first = quantile == "p50"
        table.row(f"added {quantile} at {whole.bench.plan.rate:,}/s, us", extra["weir"], extra["nginx"], out[f"added_{quantile}_ratio"], None,
                  "<= nginx + 30" if first else "", extra["weir"] <= extra["nginx"] + 30 if first else None)


def memory_rows(table, whole):
    memory, peer = whole.raw.get("memory_weir"), whole.raw.get("memory_nginx")
    if not memory or not peer:
        return
    table.row(f"an open stream of {memory['streams']:,}, KiB", memory["stream_kib"], peer["stream_kib"], None, None, "<= 32",
              memory["stream_kib"] <= 32)
    idle, idle_peer = (m["idle_kib"]["rss"] / 1024 for m in (memory, peer))
    table.row("idle, all processes, MiB (RSS)", idle, idle_peer, None, None, "<= 40", idle <= 40)
    start, start_peer = (statistics.median(m["start_ms"]) for m in (memory, peer))
    table.row("exec to first answer, ms", start, start_peer, None, None, "<= 200", start <= 200)


def ledger_rows(table, out):
    """What the ledger costs alone, without a proxy around it: nginx has none."""
    for what, key, limit in (("admit + settle over 6 meters, processor time, us", "ledger_pair_us", None),
                             ("the same by two processes on the same meters", "ledger_contended_us", 1),
                             ("its p99.9 by the clock, us", "ledger_contended_p999_us", 20),
                             ("a million meters beside ten, ratio of times", "ledger_million_ratio", 1.2),
                             ("the same without fetching ahead", "ledger_million_unfetched_ratio", None),
                             ("the same, settled 64 requests later", "ledger_million_late_ratio", None),
                             ("recovery of 1,000 requests in flight, ms", "ledger_recovery_ms", 10)):
        value = out[key]
        table.row(what, value, None, None, None, f"<= {limit}" if limit else "", value is not None and value <= limit if limit else None)


def health_rows(table, out):
    """What each target of a request costs before and after it was asked."""
    for what, key, limit in (("is a target worth asking, one that never failed, ns", "health_look_absent_ns", 20),
                             ("the same, one that failed and is up again", "health_look_healthy_ns", 20),
                             ("telling of its success", "health_success_healthy_ns", None)):
        value = out[key]
        table.row(what, value, None, None, None, f"<= {limit}" if limit else "", value is not None and value <= limit if limit else None)


def history_rows(table, whole, out):
    """Instructions of a request before each step, and how many times that it takes behind it."""
    for i, (name, revision, limit) in enumerate(earlier.STEPS):
        count = whole.raw.get(f"request_instructions_before_{revision}")
        behind = out["request_instructions"] if i + 1 == len(earlier.STEPS) else whole.raw.get(
            f"request_instructions_before_{earlier.STEPS[i + 1][1]}")
        if count and behind:
            table.row(f"user instructions before {name}, and the ratio behind it", count, None, behind / count, None, f"<= {limit} x",
                      behind / count <= limit)


def promise_rows(table, whole):
    """What the ledger promises to people, as the end-to-end tests found it."""
    for f in whole.raw.get("agents", []):
        table.row(f"five agents, $5 a day: requests answered, of these clamped {f['clamped']}", f["answered"], None)
        table.row(f"the same: refused, the first with $ {f['limit_usd'] - f['spent_at_first_refusal_usd']:.2f} left (a floor holds $ {f['floor_usd']:.2f})",
                  f["refused"], None)
        table.row("the same: $ spent in the end", f["spent_usd"], None, None, None, f"<= {f['limit_usd']:g}", f["spent_usd"] <= f["limit_usd"])
    if whole.raw.get("bound"):
        least = min(whole.raw["bound"], key=lambda f: f["held_to_cost"])
        table.row(f"the bound over the counted tokens' cost, least of {len(whole.raw['bound'])} texts ({least['text']})", least["held_to_cost"],
                  None, None, None, ">= 1", least["held_to_cost"] >= 1)


def table(bench, whole, out):
    t = Table()
    us = "processor time, us"
    cpu_row(t, whole, out, f"request 1 KB, {us}", "request_1k", "cpu_us_per_request", "request_cpu_ratio", 1.15)
    cpu_row(t, whole, out, f"request 32 KB, {us}", "request_32k", "cpu_us_per_request", "request_cpu_ratio_32k", 1.0)
    cpu_row(t, whole, out, f"request 1 KB, TLS upstream, {us}", "tls_1k", "cpu_us_per_request", "tls_cpu_ratio", 1.2)
    cpu_row(t, whole, out, f"request 32 KB, TLS upstream, {us}", "tls_32k", "cpu_us_per_request", "tls_cpu_ratio_32k", None)
    cpu_row(t, whole, out, f"SSE event, {us}", "event", "cpu_us_per_event", "event_cpu_ratio", 1.1)
    exact_row(t, out, "request with few headers, user instructions", "request_instructions", 25000)
    exact_row(t, out, "request of Claude Code, user instructions", "request_claude_code_instructions", None)
    exact_row(t, out, "event, user instructions", "event_instructions", 3000)
    exact_row(t, out, "request, system calls of the worker", "request_syscalls", 8)
    exact_row(t, out, "event, system calls of the worker", "event_syscalls", 3)
    if "request_1k" in whole.raw:
        m = medians(whole.raw["request_1k"], "requests_per_s")
        t.row("requests a second, 1 KB", m["weir"], m["nginx"], m["weir"] / m["nginx"])
    paced_rows(t, whole, out)
    memory_rows(t, whole)
    t.row("scan of a 1 MB body, GB/s (slowest shape)", out["scan_gb_per_s"], None, None, None, ">= 1", (out["scan_gb_per_s"] or 0) >= 1)
    t.row("canonical digest of a 1 MB body, GB/s (slowest shape)", out["canon_gb_per_s"], None, None, None, ">= 0.5",
          (out["canon_gb_per_s"] or 0) >= 0.5)
    ledger_rows(t, out)
    health_rows(t, out)
    promise_rows(t, whole)
    history_rows(t, whole, out)
    c = out["conditions"]
    notes = [f"{c['cpu']}, proxy on core {c['core_proxy']}, load and upstream on core {c['core_load']}; {c['nginx']}; "
             f"build {c['build']['buildtype']}, {bench.plan.rounds} rounds"]
    if bench.proxy_core == bench.load_core:
        notes.append("one core only: the proxies share it with the load; the ratios are not worth quoting")
    if c["build"]["buildtype"] == "debug" or c["build"]["sanitize"] != "none":
        notes.append("this build is not optimised; use --build with a release build")
    if (c["others_share"] or 0) > 0.1:
        notes.append(f"a noisy machine: other work took {c['others_share']:.0%} of the proxy's core; judge by the exact rows")
    notes += [f"not measured: {name}: {why}" for name, why in whole.missing.items()]
    notes += [f"FAILED: {name}: {why}" for name, why in whole.failed.items()]
    return "\n".join([t.render(), "", *notes])
