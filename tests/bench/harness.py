"""Processes: started on a core, measured through /proc, ended by their own ids."""
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Fault(Exception):
    """The bench cannot go on; the text is one line for its user."""


class Late(Fault):
    """A measurement came to nothing because something was late, as on a busy machine: it is worth another try."""


class Absent(Exception):
    """What a measurement needs is not on this machine: that is said, and no fault."""


def cores():
    """(core of the proxy, core of load and upstream)."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def spawn(argv, core, **options):
    """A child on one core, which the kernel ends with us."""
    def setup():
        os.sched_setaffinity(0, {core})
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    return subprocess.Popen(argv, preexec_fn=setup, **options)


def _parents():
    """pid -> parent of all processes; those that end meanwhile are left out."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as f:
                found[int(name)] = int(f.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def family(pid):
    """A process and all that descend from it."""
    parents, members = _parents(), [pid]
    for member in members:
        members += [child for child, parent in parents.items() if parent == member]
    return members


def end(process, patience_s=10):
    """SIGTERM, then SIGKILL to it and its descendants; never anybody else."""
    if process.poll() is not None:
        return
    members = family(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience_s)
        return
    except subprocess.TimeoutExpired:
        pass
    for pid in members:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def cpu_ns(pids):
    """Processor time of all threads, in nanoseconds; by the tick where the kernel keeps no finer account."""
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0])
            except FileNotFoundError:
                with open(f"/proc/{pid}/task/{task}/stat") as f:
                    fields = f.read().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return total


def split_ms(pids):
    """(user, system) milliseconds, from /proc/<pid>/stat: coarse, for the share only."""
    user = system = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    tick_ms = 1000 / os.sysconf("SC_CLK_TCK")
    return user * tick_ms, system * tick_ms


def core_busy_s(core):
    """Seconds that a core has worked for anybody, or was taken by the machine below."""
    with open("/proc/stat") as f:
        for line in f:
            name, *ticks = line.split()
            if name == f"cpu{core}":
                user, nice, system, _idle, _iowait, irq, softirq, steal = (int(t) for t in ticks[:8])
                return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    raise Fault(f"/proc/stat: has no cpu{core}")


def memory_kib(pids):
    """{"rss": .., "pss": ..}: RSS counts a shared page once a process, PSS by its share, which depends on strangers too."""
    total = {"pss": 0, "rss": 0}
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                for line in f:
                    name, _, rest = line.partition(":")
                    if name in ("Pss", "Rss"):
                        total[name.lower()] += int(rest.split()[0])
        except PermissionError:
            raise Fault(f"/proc/{pid}/smaps_rollup: not readable; run the bench as root") from None
    return total


def wait_for(condition, what, seconds=30, pause_s=0.01):
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Fault(f"{what}: not within {seconds} s")
        time.sleep(pause_s)


def read_line(process, what, seconds=30):
    """One JSON line of a child of ours."""
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    line = process.stdout.readline() if ready else b""
    if not line:
        raise Fault(f"{what}: gave no answer (exit status {process.poll()})")
    return json.loads(line)


class Load:
    """A running load generator; mark() ends an interval and gives its figures."""

    def __init__(self, bench, target, body, connections=32, rate=0, requests=0, seconds=120):
        argv = [bench.tool("bench_load"), "--port", target.port, "--path", "/v1/messages?beta=true", "--head", target.head_file,
                "--body", bench.body_file(*body), "--connections", connections, "--requests", requests, "--seconds", seconds]
        if rate:
            argv += ["--rate", rate]
        self.process = spawn([str(a) for a in argv], bench.load_core, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def mark(self):
        self.process.stdin.write(b"\n")
        return read_line(self.process, "bench_load")

    def finish(self):
        """Waits until all requests are answered."""
        return read_line(self.process, "bench_load", 300)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)
        self.process.stdin.close()
        self.process.stdout.close()
