#!/usr/bin/env python3
"""The protocols of the ledger, tried in every order by spin.

	tests/model/run.py [--long] [--keep DIR]

First the protocols as they are: spin must look at every state and find no
error. Then each with one fault put in on purpose (the MUTANT_... in the
models): spin must find that one, or the check itself is blind. --long tries
more requests and deaths: minutes, and some GiB of memory.

Exit status 77 (skipped, for meson) where there is no spin.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SKIPPED = 77
DEPTH = 100000		# steps of one course of events; the longest have some hundreds
HASH_BITS = 24

# model, what is tried, its bounds: some seconds and at most 400 MiB each
WHOLE = [
    ("ledger", "two workers, a request each, two deaths", {}),
    ("ledger", "one worker, three requests, a full ring, two deaths", {"REQUESTS0": 3, "REQUESTS1": 0}),
    ("ledger", "one worker, one who looks, two deaths", {"REQUESTS0": 1, "REQUESTS1": 0, "LOOKER": 1}),
    ("eviction", "two workers, two requests each, two deaths, four rounds of keepers", {"MOVES": 0}),
    ("eviction", "two workers, two requests each that may move, two deaths, three rounds of keepers", {"ROUNDS": 3}),
]
LONG = [
    ("ledger", "two workers, two requests each, one death", {"REQUESTS0": 2, "REQUESTS1": 2, "DEATHS": 1}),
    ("ledger", "two workers, a request each, three deaths", {"DEATHS": 3}),
    ("ledger", "two workers, one who looks, one death", {"LOOKER": 1, "DEATHS": 1}),
    ("eviction", "two workers, four requests each, seven rounds of keepers", {"REQUESTS": 4, "ROUNDS": 7, "MOVES": 0}),
    ("eviction", "two workers, two requests each that may move, four rounds of keepers", {}),
]
LOOKED_AT = {"REQUESTS0": 1, "REQUESTS1": 0, "LOOKER": 1}
MUTANTS = [
    ("ledger", "NOTE_LATE", {}, "a word changes before its note"),
    ("ledger", "EMPTIED_FIRST", {}, "a repair empties the journal before it puts the words back"),
    ("ledger", "UNDO_FORWARD", {}, "a repair puts back the first note first"),
    ("ledger", "REPAIR_HIDES", {}, "a repair does not show an item that was committed"),
    ("ledger", "NEVER_CONSISTENT", {}, "a repaired lock is not called consistent"),
    ("ledger", "SEQUENCE_STAYS_ODD", {}, "a repair leaves the sequence odd"),
    ("ledger", "PAGE_WITHOUT_NOTE", {}, "a page is taken without a note"),
    ("ledger", "ONE_COPY", {}, "what was metered exists once"),
    ("ledger", "RECLAIM_BEFORE_REPAIR", {}, "pages are looked at before the dead one's step is undone"),
    ("ledger", "KEEPER_SEES_THE_HEAD", {}, "the keeper reads items of a step that may be undone"),
    ("ledger", "TAIL_FIRST", {}, "the keeper frees room before it has stored"),
    ("ledger", "STORES_TWICE", {}, "the keeper does not ask what a dead one stored"),
    ("ledger", "STEP_UNMARKED", LOOKED_AT, "the sequence is even during a step"),
    ("eviction", "SETTLE_IS_NO_USE", {}, "a settlement does not renew the meter's tick"),
    ("eviction", "MOVE_IS_NO_USE", {}, "a move does not renew the meter's tick"),
    ("eviction", "EVICTIONS_READ_LATE", {}, "evictions are counted after the store was asked"),
    ("eviction", "LOAD_NEVER_STALE", {}, "a load does not ask whether meters were evicted meanwhile"),
    ("eviction", "TICK_AFTER_READING", {}, "the keeper ticks after it read the rings"),
    ("eviction", "SCAN_BEFORE_TICK", {}, "the keeper looks at the pages before it ticks"),
    ("eviction", "EVICTS_WITHOUT_SCAN", {}, "the keeper does not look at the pages"),
    ("eviction", "SCAN_TRUSTS_THE_DEAD", {}, "the keeper believes a page that a repair took back"),
    ("eviction", "EVICTS_WHAT_IS_NEW", {}, "a meter of the present tick is evicted"),
]


class Fault(Exception):
    """The check could not be made."""


def call(argv, folder, limit_s):
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=limit_s, check=False)
    return done.returncode, done.stdout + done.stderr


class Checker:
    def __init__(self, folder, compiler, limit_s, memory_mib):
        self.folder, self.compiler, self.limit_s, self.memory_mib = folder, compiler, limit_s, memory_mib

    def check(self, model, defines, optimise="-O2"):
        """(errors, states, seconds, the first error) of a search through all states, or up to the first error."""
        names = [f"-D{name}={value}" for name, value in defines.items()]
        status, text = call(["spin", "-a", *names, os.path.join(HERE, model + ".pml")], self.folder, 60)
        if status != 0 or "Error" in text:
            raise Fault(f"spin -a: {text.strip()}")
        flags = [optimise, "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={self.memory_mib}"]
        status, text = call([self.compiler, *flags, "-o", "pan", "pan.c"], self.folder, 120)
        if status != 0:
            raise Fault(f"{self.compiler} pan.c: {text.strip()[-400:]}")
        began = time.monotonic()
        status, text = call(["./pan", f"-m{DEPTH}", f"-w{HASH_BITS}", "-c1"], self.folder, self.limit_s)
        errors = re.search(r"errors: (\d+)", text)
        states = re.search(r"(\S+) states, stored", text)
        if status != 0 or not errors or not states or re.search(r"depth too small|reached -DMEMLIM|out of memory", text):
            raise Fault(f"the search was not complete: {text.strip()[-400:]}")
        if errors[1] == "0" and "Search not completed" in text:
            raise Fault(f"the search was not complete: {text.strip()[-400:]}")
        first = re.search(r"^pan:\d+: (.*)", text, re.M)
        return int(errors[1]), int(float(states[1])), time.monotonic() - began, first[1] if first else ""


def check_whole(checker, plan):
    bad = 0
    for model, what, defines in plan:
        errors, states, seconds, first = checker.check(model, defines)
        print(f"{model}: {what}: errors: {errors}, {states:,} states, {seconds:.1f} s", flush=True)
        if errors:
            print(f"    {first}")
        bad += errors != 0
    return bad


def check_mutants(checker):
    missed = 0
    for model, name, defines, what in MUTANTS:
        errors, states, _, first = checker.check(model, {**defines, "MUTANT_" + name: 1}, "-O0")
        print(f"{model}, but {what}: {f'found after {states:,} states' if errors else 'NOT FOUND'}"
              f"{' (stuck)' if first.startswith('invalid end state') else ''}", flush=True)
        missed += errors == 0
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="more requests and deaths")
    parser.add_argument("--keep", metavar="DIR", help="leave the last checker and its trail in this folder")
    options = parser.parse_args()
    compiler = next((c for c in (os.environ.get("CC", "").split() or ["cc"])[:1] + ["cc", "gcc", "clang"] if shutil.which(c)), None)
    if not shutil.which("spin") or not compiler:
        print("model: spin or a C compiler is not installed: apt-get install spin gcc")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="weir-model-") as folder:
        if options.keep:
            os.makedirs(options.keep, exist_ok=True)
        checker = Checker(options.keep or folder, compiler, 3600 if options.long else 240, 8000 if options.long else 2000)
        try:
            bad = check_whole(checker, WHOLE + (LONG if options.long else []))
            missed = check_mutants(checker)
        except (Fault, subprocess.TimeoutExpired) as fault:
            print(f"model: {fault}")
            return 1
    print(f"model: {bad} with errors, {len(MUTANTS) - missed} of {len(MUTANTS)} faults found")
    return 1 if bad or missed else 0


if __name__ == "__main__":
    sys.exit(main())
