#!/usr/bin/env python3
"""Writes the manual pages beside it: the prose below, and the options that each program's --help gives.

    make.py BIN            writes them; BIN is the folder of the programs
    make.py --check BIN    says what differs and exits 1 when anything does

Only the standard library is used.
"""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
COMMANDS = ["up", "chat", "complete", "generate", "perplexity", "tokenize", "render", "bench serve", "bench model", "bench grammar", "bench kernels",
            "bench sampler", "bench transfer", "probe", "inspect", "make-model", "doctor"]
COMMON = ["--log-level", "--log-format", "--help", "--version"]

BATON = r"""
.Nm
is one program with many commands.
.Nm
.Cm up
starts a whole cluster on this host: a router, a prefill node and a decode node, a process each.
The prefill node computes the KV cache of a prompt and hands it to the decode node, which streams the tokens.
.Pp
Everything is given by options and configuration files; no environment variable is needed for anything.
Where a value is given more than once an option counts before the file of
.Fl Fl config ,
and the file before the default.
"""

ROUTER = r"""
.Nm
takes requests over HTTP
.Pq an OpenAI-compatible API
and gRPC
.Pq Li baton.v1.Inference ,
turns text into token ids, has a prefill node compute each prompt and a decode node continue it, and streams the answer.
It holds no model weights, only the model folder's tokenizer and configuration.
Work waits in its queue; when that is full it answers 429 with
.Li Retry-After .
When a node dies its requests go on elsewhere as long as another node of that role is there.
.Pp
When it serves, which takes one decode node, it prints one line, and another when all its nodes are up for the first time:
.Dl ready http=http://HOST:PORT grpc=HOST:PORT model=NAME
.Dl complete nodes=N
"""

PREFILL = r"""
.Nm
computes the KV cache of prompts in chunks and hands it to decode nodes layer by layer while it computes: over
shared memory on one host, else over UCX.
It is told what to do by
.Xr baton-router 8
over gRPC.
"""

DECODE = r"""
.Nm
takes KV cache from prefill nodes, checks every slice that lands, and generates tokens for all its sequences in steps
.Pq continuous batching .
With
.Fl Fl node-role Cm both
it computes the prompts by itself as well: an aggregated node, which needs no prefill node.
It is told what to do by
.Xr baton-router 8
over gRPC.
"""

NODE_MORE = r"""
When it serves, it prints one line beginning with
.Li node ,
with its gRPC and HTTP addresses.
.Li /metrics ,
.Li /health/live
and
.Li /health/ready
are on its HTTP port.
.Pp
Every option is a key of the configuration file too: the part before the first dash is the section, the rest the
key with underscores for dashes;
.Fl Fl timeouts-drain Ar 30s
is
.Li "timeouts: {drain: 30s}" .
Sizes are bytes or have a unit
.Pq Li 64KiB , 1GiB ,
durations have one
.Pq Li 250ms , 10s , 5m .
An unknown key, a wrong type or a value out of range ends the program with one line that says where
and what was expected.
"""

ROUTER_MORE = NODE_MORE.split(".Pp", 1)[1]

STOPPING = r"""
.Sh EXIT STATUS
0 after
.Fl Fl help ,
.Fl Fl version ,
or a clean stop by SIGINT or SIGTERM: nothing new is admitted, what runs may end within
.Li timeouts.drain ,
every transfer is released.
1 for a failure, after one line that says why; 2 for a wrong command line.
"""

SECURITY = r"""
.Sh SECURITY
gRPC between the programs is authenticated and encrypted when
.Fl Fl tls-ca ,
.Fl Fl tls-cert
and
.Fl Fl tls-key
are given.
The KV cache itself travels unencrypted: keep its network private.
Addresses are 127.0.0.1 unless others are given.
"""

PROGRAMS = {
    "baton-router.8": ("baton-router", "router of a Baton cluster", ROUTER, ROUTER_MORE),
    "baton-prefill.8": ("baton-prefill", "prefill node of a Baton cluster", PREFILL, NODE_MORE),
    "baton-decode.8": ("baton-decode", "decode node of a Baton cluster", DECODE, NODE_MORE),
}


def help_of(words):
    done = subprocess.run([*words, "--help"], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        sys.exit(f"make.py: {' '.join(words)} --help: {done.stderr or done.returncode}")
    return done.stdout


def parse(text):
    """Usage words, the lines about it, and [(option, value, help)]."""
    lines = text.splitlines()
    usage = lines[0].split(": ", 1)[1]
    about, options = [], []
    for line in lines[1:]:
        match = re.match(r"  (--[a-z0-9-]+)(?: (\S.*?))?(?:  +(\S.*))?$", line)
        if match:
            options.append([match.group(1), match.group(2) or "", match.group(3) or ""])
        elif line.startswith(" " * 20) and options:
            options[-1][2] = (options[-1][2] + " " + line.strip()).strip()
        elif line.strip():
            about.append(line.strip())
    return usage, about, options


def escape(text):
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + text if text[:1] in (".", "'") else text


def option_list(options):
    out = [".Bl -tag -width Ds"]
    for name, value, text in options:
        out.append(".It Fl Fl " + escape(name[2:]) + (" Ar " + escape(value).replace('"', "") if value else ""))
        out.append(escape(text))
    return out + [".El"]


def page(name, section, about, body):
    return "\n".join([".\\\" Written by docs/man/make.py: the options are those of --help.", ".Dd November 22, 2026",
                      f".Dt {name.upper()} {section}", ".Os", ".Sh NAME", f".Nm {name}", f".Nd {about}",
                      *body]) + "\n"


def baton_page(bin_dir):
    body = [".Sh SYNOPSIS", ".Nm", ".Ar command", ".Op Ar options", ".Sh DESCRIPTION", BATON.strip(), ".Sh COMMANDS"]
    common = []
    for command in COMMANDS:
        usage, about, options = parse(help_of([os.path.join(bin_dir, "baton"), *command.split()]))
        common = [o for o in options if o[0] in COMMON]
        body += [f".Ss {escape(usage)}", *map(escape, about)]
        own = [o for o in options if o[0] not in COMMON]
        body += option_list(own) if own else []
    body += [".Ss Options of every command", *option_list(common), STOPPING.strip()]
    body += [".Sh EXAMPLES", "A cluster that serves the embedded model, and a completion:",
             ".Dl baton up \\-\\-model models/tiny",
             ".Dl baton complete \\-\\-prompt \\(dqOnce upon a time\\(dq \\-\\-timing",
             "Load of 32 requests at a time, with the share of them that is fast enough:",
             ".Dl baton bench serve \\-\\-concurrency 32 \\-\\-slo ttft=500,itl=50 \\-\\-json result.json"]
    body += [".Sh SEE ALSO", ".Xr baton-router 8 ,", ".Xr baton-prefill 8 ,", ".Xr baton-decode 8"]
    return page("baton", 1, "serve language models with prefill and decode on nodes of their own", body)


def program_page(bin_dir, name, about, text, more):
    _, _, options = parse(help_of([os.path.join(bin_dir, name)]))
    body = [".Sh SYNOPSIS", ".Nm", ".Op Fl Fl config Ar FILE", ".Op Ar options", ".Sh DESCRIPTION", text.strip(), ".Pp",
            more.strip(), ".Sh OPTIONS", *option_list(options), STOPPING.strip(), SECURITY.strip(), ".Sh SEE ALSO"]
    others = [p for p in ("baton-decode", "baton-prefill", "baton-router") if p != name]
    body += [".Xr baton 1 ,"] + [f".Xr {p} 8" + (" ," if p != others[-1] else "") for p in others]
    return page(name, 8, about, body)


def main():
    words = [w for w in sys.argv[1:] if w != "--check"]
    if len(words) != 1:
        sys.exit("usage: make.py [--check] BIN")
    pages = {"baton.1": baton_page(words[0])}
    for file, parts in PROGRAMS.items():
        pages[file] = program_page(words[0], *parts)
    stale = []
    for file, text in pages.items():
        path = os.path.join(HERE, file)
        old = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                old = f.read()
        if old != text:
            stale.append(file)
            if "--check" not in sys.argv:
                with open(path, "w", encoding="utf-8") as f:
                    f.write(text)
    if "--check" in sys.argv and stale:
        sys.exit(f"{', '.join(stale)}: not what --help says; run docs/man/make.py {words[0]}")
    print(f"{len(pages)} pages, {len(stale)} " + ("stale" if "--check" in sys.argv else "written"))


if __name__ == "__main__":
    main()
