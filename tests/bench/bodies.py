"""What a Claude Code session sends: headers and a body of an exact size."""
import json

MODEL = "claude-sonnet-5-5"
METADATA = '{"team":"platform","project":"river","environment":"production","_user":"u-1042"}'

_HEADERS = """\
accept: application/json
accept-encoding: gzip, deflate, br, zstd
user-agent: claude-cli/2.1.295 (external, cli)
content-type: application/json
anthropic-version: 2023-06-01
anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,effort-2025-11-24
anthropic-dangerous-direct-browser-access: true
x-app: cli
x-claude-code-session-id: 7b0c6c1e-52c4-4f0a-9a55-0a7d2c1f6a31
x-stainless-lang: js
x-stainless-package-version: 0.120.0
x-stainless-os: Linux
x-stainless-arch: x64
x-stainless-runtime: node
x-stainless-runtime-version: v24.3.0
x-stainless-retry-count: 0
x-stainless-timeout: 600
connection: keep-alive
"""

_FEW_HEADERS = """\
content-type: application/json
anthropic-version: 2023-06-01
user-agent: bench/1
"""

_PROSE = (
    "The handler opens the file before it has looked at the header, so a request with a \"range\" it cannot serve still "
    "costs a descriptor.\n\n\tif (range.start > size)\n\t\treturn reply(416, \"range not satisfiable\");\n\nMove the check up, "
    "keep the error text, and say in the comment why C:\\\\ paths are refused. "
)

_TOOLS = ("Bash", "Read", "Edit", "Write", "Glob", "Grep", "WebFetch", "TodoWrite", "Task", "NotebookEdit", "LSP", "Skill")


def head(secret, few=False):
    """The header lines of a request, CRLF and all; load adds host and length."""
    lines = (_FEW_HEADERS if few else _HEADERS).splitlines() + [f"authorization: Bearer {secret}", f"x-portkey-metadata: {METADATA}"]
    return "".join(line + "\r\n" for line in lines)


def _tool(name):
    return {
        "name": name,
        "description": f"{name}: " + _PROSE,
        "input_schema": {
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "Absolute path of the file to work on"},
                "limit": {"type": "integer", "minimum": 1, "description": "How many lines, at most"},
                "pattern": {"type": "string"},
            },
            "required": ["path"],
            "additionalProperties": False,
        },
    }


def body(size, stream):
    """A request of <size> bytes in Claude Code's order of members."""
    roomy = size >= 16 * 1024
    cached = {"type": "ephemeral"}
    call = {
        "model": MODEL,
        "messages": [],
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.295.a1f; cc_entrypoint=cli;"},
            {"type": "text", "text": "You are Claude Code, Anthropic's official CLI for Claude.", "cache_control": cached},
        ],
        "metadata": {"user_id": json.dumps({"device_id": "5e" * 32, "account_uuid": "", "session_id": "7b0c6c1e-52c4-4f0a-9a55-0a7d2c1f6a31"})},
        "max_tokens": 32000,
        "stream": stream,
    }
    if roomy:
        call["system"].append({"type": "text", "text": _PROSE * 20, "cache_control": cached})
        call["tools"] = [_tool(name) for name in _TOOLS]
        for turn in range(4):
            use = f"toolu_01Bx{turn:018d}"
            call["messages"] += [
                {"role": "user", "content": [{"type": "text", "text": _PROSE}]},
                {"role": "assistant", "content": [{"type": "tool_use", "id": use, "name": "Read", "input": {"path": "/srv/app/range.c"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use, "content": _PROSE * 5}]},
            ]
    last = {"type": "text", "text": "", "cache_control": cached}
    call["messages"].append({"role": "user", "content": [last]})
    bare = len(json.dumps(call, separators=(",", ":")))
    if bare > size:
        raise ValueError(f"a body of {size} bytes is too small: the frame alone has {bare}")
    # Escapes count double, so the text is cut a character at a time at its end.
    text = _PROSE * (size // len(_PROSE) + 1)
    while len(json.dumps(text)) - 2 > size - bare:
        text = text[: len(text) - max(1, (len(json.dumps(text)) - 2 - (size - bare)) // 2)]
    last["text"] = text + "." * (size - bare - (len(json.dumps(text)) - 2))
    return json.dumps(call, separators=(",", ":"))
