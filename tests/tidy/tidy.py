#!/usr/bin/env python3
"""The rules of this tree that a machine can check, run as a test.

	tests/tidy/tidy.py [ROOT]

An exception is one line with its reason in allow.txt; one that matches nothing
any more is itself a finding. Prints a line a finding, and how many there are.
"""
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

FILE_LINES_MAX = 900
FUNCTION_LINES_MAX = 70
CODE = (".c", ".h")
SCRIPTS = (".py", ".mjs", ".js", ".ts")
FOLDERS = ("shm", "store", "policy", "upstream", "gateway", "tests", "deploy", "docs")

# Who may include whom, the longest prefix of a file's path first. An include
# without a slash is a neighbour of a program in tests, or made by the build.
LAYERS = {
    "shm/base/": ("shm/base/",),
    "shm/": ("shm/",),
    "store/": ("shm/", "store/"),
    "policy/": ("shm/", "store/record.h", "policy/"),
    "upstream/": ("shm/base/", "shm/limits.h", "upstream/"),
    "gateway/": ("shm/", "store/", "policy/", "upstream/", "gateway/"),
    "tests/": ("shm/", "store/", "policy/", "upstream/", "gateway/", "tests/"),
}
# Third parties and where they may be included; tests may include them all.
HOMES = {
    "lmdb.h": ("store/",),
    "llhttp.h": ("upstream/wire/",),
    "uv.h": ("upstream/", "gateway/"),
    "mbedtls/": ("upstream/wire/tls", "policy/digest.c", "store/"),
    "psa/": ("upstream/wire/tls", "policy/digest.c", "store/"),
    "pcre2.h": ("policy/regex.c",),
    "cjson/": ("store/", "policy/", "gateway/"),
    "cmocka.h": (),
}
BANNED = re.compile(r"\b(strcpy|strncpy|strcat|strncat|sprintf|vsprintf|alloca|gets|strtok|atoi|atol|atof|system|popen)\s*\(")
LATER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
SOMEBODYS_FOLDER = re.compile(r"/(home|Users)/[a-z]\w*/")
VAGUE = re.compile(r"^(util|utils|misc|common|helper|helpers)\.")
SECRET = re.compile(r"\b(sk-ant-api\d\d-[\w-]{80,}|AKIA[0-9A-Z]{16})\b|-----BEGIN [A-Z ]*PRIVATE KEY-----")
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.M)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


class Tree:
    """The files, the findings, and the exceptions."""

    def __init__(self, root):
        self.root = root
        self.findings = []
        self.allowed = set()
        self.used = set()
        self.files = sorted(name for name in self.listed() if os.path.isfile(self.path(name)))
        self.read_allowed()

    def path(self, name):
        return os.path.join(self.root, name)

    def listed(self):
        """What git tracks or would track; in a copy without git, what lies there."""
        listing = ["git", "-c", "safe.directory=*", "-C", self.root, "ls-files", "-co", "--exclude-standard"]
        git = shutil.which("git") and subprocess.run(listing, capture_output=True, text=True, check=False)
        if git and git.returncode == 0 and git.stdout:
            return git.stdout.splitlines()
        names = []
        for at, folders, files in os.walk(self.root):
            folders[:] = [f for f in folders if f != "node_modules" and not f.startswith((".", "build"))]
            names += [os.path.relpath(os.path.join(at, name), self.root) for name in files]
        return names

    def read_allowed(self):
        for line in self.read("tests/tidy/allow.txt").splitlines():
            if line and not line.startswith("#"):
                rule, where, reason = (line.split(None, 2) + ["", ""])[:3]
                self.allowed.add((rule, where))
                if not reason:
                    self.findings.append(f"tests/tidy/allow.txt: {rule} {where}: no reason is given")

    def read(self, name):
        with open(self.path(name), encoding="utf-8", errors="replace") as text:
            return text.read()

    def find(self, rule, name, text, line=0):
        if (rule, name) in self.allowed:
            self.used.add((rule, name))
        else:
            self.findings.append(f"{name}{f':{line}' if line else ''}: {rule}: {text}")

    def report(self):
        for rule, name in sorted(self.allowed - self.used):
            self.findings.append(f"tests/tidy/allow.txt: {rule} {name}: matches nothing any more")
        for finding in self.findings:
            print(finding)
        print(f"tidy: {len(self.files)} files, {len(self.findings)} findings")
        return 1 if self.findings else 0


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def without_comments(text):
    """The code alone: comments and strings become blanks, line numbers stay."""
    return COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def check_text(tree, name, text):
    """What holds for every text file."""
    lines = text.count("\n")
    if name.endswith(CODE + SCRIPTS) and lines > FILE_LINES_MAX:
        tree.find("file-length", name, f"{lines} lines, at most {FILE_LINES_MAX}")
    if text and not text.endswith("\n"):
        tree.find("last-line", name, "has no line feed at its end")
    if VAGUE.match(os.path.basename(name)):
        tree.find("vague-name", name, "the name does not say what is in it")
    beside = os.path.dirname(os.path.abspath(tree.root))	# but not /tmp, /opt, /srv: they are everywhere
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip() and not name.endswith(".md"):
            tree.find("trailing-space", name, "white space at the end of the line", number)
        if LATER.search(line) and not name.startswith("tests/tidy/"):
            tree.find("later", name, "work left for later", number)
        sample = name.startswith("tests/")	# prompts in tests speak of such folders
        if (SOMEBODYS_FOLDER.search(line) and not sample) or (beside.count("/") > 1 and beside + "/" in line):
            tree.find("machine-path", name, "a path that means nothing elsewhere", number)
        if SECRET.search(line):
            tree.find("secret", name, "looks like a real secret", number)


def check_includes(tree, name, text):
    layer = next((prefixes for folder, prefixes in LAYERS.items() if name.startswith(folder)), ())
    for match in INCLUDE.finditer(text):
        kind, what = match.groups()
        line = line_of(text, match.start())
        if kind == '"' and "/" in what and not what.startswith(layer):
            tree.find("layer", name, f"{what} is above this folder", line)
        if kind == '"' and "/" not in what and not name.startswith("tests/"):
            tree.find("include-path", name, f"{what}: write its folder too", line)
        for third, homes in HOMES.items():
            if what.startswith(third) and not name.startswith(("tests/",) + homes):
                tree.find("home", name, f"{what} may be included in {', '.join(homes) or 'tests/'} only", line)


def check_functions(tree, name, code):
    """Functions are found by their shape: name at column 0, braces too."""
    title, start = "", 0
    for number, line in enumerate(code.split("\n"), 1):
        head = re.match(r"([a-z_]\w*)\(", line)
        if head:
            title, start = head.group(1), number
        elif line.startswith("}") and title:
            if number - start + 1 > FUNCTION_LINES_MAX:
                tree.find("function-length", f"{name}:{title}", f"{number - start + 1} lines, at most {FUNCTION_LINES_MAX}", start)
            title = ""


def check_code(tree, name, text):
    code = without_comments(text)
    if not text.startswith("/*"):
        tree.find("opening-comment", name, "does not begin with a comment that states its model")
    if name.endswith(".h"):
        guard = "WEIR_" + re.sub(r"\W", "_", name).upper()
        if f"#ifndef {guard}\n#define {guard}\n" not in text:
            tree.find("guard", name, f"has no guard {guard}")
    for match in BANNED.finditer(code):
        tree.find("banned", name, f"{match.group(1)}() is not used here", line_of(code, match.start()))
    for match in re.finditer(r"\btypedef\s+(struct|union|enum)\b", code):
        tree.find("typedef", name, "structs and enums are called by their own names", line_of(code, match.start()))
    for match in re.finditer(r"^ {8}", text, re.M):
        tree.find("indent", name, "indented by spaces, not tabs", line_of(text, match.start()))
    check_includes(tree, name, text)
    check_functions(tree, name, code)


def check_script(tree, name, text):
    if text.startswith("#!") and not os.access(tree.path(name), os.X_OK):
        tree.find("not-executable", name, "begins with #! and may not be executed")
    if re.match(r"#!.*\b(ba)?sh\n", text) and not re.search(r"^set -\w*u\w*", text, re.M):
        tree.find("shell", name, "a script without set -u")


def check_links(tree, name, text):
    for match in LINK.finditer(text):
        target = match.group(1)
        if "://" in target or target.startswith("mailto:"):
            continue
        if not os.path.exists(os.path.join(tree.root, os.path.dirname(name), target)):
            tree.find("link", name, f"{target} does not exist", line_of(text, match.start()))


def main():
    root = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "..", ".."))
    tree = Tree(root)
    for folder in FOLDERS:
        if f"{folder}/README.md" not in tree.files:
            tree.find("readme", folder, "has no README.md")
    for name in tree.files:
        with open(tree.path(name), "rb") as raw:
            if b"\0" in raw.read():
                continue
        if "/corpus/" in name or "/corpora/" in name or name == "LICENSE" or name.endswith("package-lock.json"):
            continue
        text = tree.read(name)
        check_text(tree, name, text)
        check_script(tree, name, text)
        if name.endswith(CODE):
            check_code(tree, name, text)
        if name.endswith(".md"):
            check_links(tree, name, text)
    return tree.report()


if __name__ == "__main__":
    sys.exit(main())
