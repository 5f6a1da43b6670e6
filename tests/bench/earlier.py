"""Earlier weirs, built from the project's own history, for ratios like for like.

What a request takes depends on the compiler and the machine's libraries, so an
earlier figure is not quoted: the earlier program is built and measured in the
same run.
"""
import json
import os
import subprocess

from harness import Absent, Fault
from proxies import Weir

# (name, the last commit before it, how many times its instructions a request may take now).
# In the order of time: each is measured beside the next, the last one beside the present.
STEPS = [("the full ledger", "038114b", 1.05), ("routing", "7c520bf", 1.03)]


class EarlierWeir(Weir):
    """Weir as it was at a revision."""

    def __init__(self, bench, name, upstream, program):
        super().__init__(bench, name, upstream)
        self.program = program


def has(root, revision):
    """A checkout without history (an archive, a shallow clone) has nothing to build."""
    return subprocess.run(["git", "-C", root, "cat-file", "-e", f"{revision}^{{commit}}"], capture_output=True).returncode == 0


def options_like(build):
    with open(os.path.join(build, "meson-info", "intro-buildoptions.json")) as f:
        options = {o["name"]: o["value"] for o in json.load(f)}
    return [f"-D{name}={options[name]}" for name in ("buildtype", "optimization")]


def run(*argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Fault(f"{' '.join(argv[:3])}: {' | '.join(done.stdout.strip().splitlines()[-3:])}")


def build(bench, root, revision):
    """The program of that revision, compiled as the one that is measured."""
    if not has(root, revision):
        raise Absent(f"no commit {revision} here: a clone with its history is needed")
    source = os.path.join(bench.dir, f"source-{revision}")
    os.makedirs(source)
    archive = os.path.join(bench.dir, f"{revision}.tar")
    run("git", "-C", root, "archive", "-o", archive, revision)
    run("tar", "-x", "-C", source, "-f", archive)
    run("meson", "setup", *options_like(bench.build), "-Dwerror=false", os.path.join(source, "build"), source)
    run("ninja", "-C", os.path.join(source, "build"), "gateway/weir")
    return os.path.join(source, "build", "gateway", "weir")
