#!/usr/bin/env python3
"""Checks the rules of the house that a compiler does not: floors, third-party confinement, sizes, forbidden words.

    tidy.py [--notes] [ROOT]    checks the files that git tracks under ROOT (all files where there is no git)

Prints `PATH:LINE: RULE: TEXT` for each breach and exits 1 when there is any; --notes adds advice.
Only the standard library is used.
"""
import fnmatch
import os
import re
import subprocess
import sys

FLOORS = {
    "base": 0,
    "proto": 1, "net": 1, "kernels": 1, "formats": 1,
    "comm": 2, "tokenizer": 2,
    "model": 3, "kvtransfer": 3,
    "engine": 4,
    "router": 5, "node": 5,
    "prefill-node": 6, "decode-node": 6,
    "cli": 7,
}
# Never included, however low the floor: the router runs without compute and without KV.
NEVER = {"router": {"model", "engine", "comm", "kvtransfer", "kernels"}}
# Beside the folders: may include anything of ours.
OPEN = {"tests", "bench", "tools"}
GENERATED = {"baton_version.h"}

# Include path pattern -> files that may have it. Tests may use what they test.
THIRD_PARTY = [
    (r"protobuf-c/|.*\.pb-c\.h$", ["proto/codec_*"]),
    (r"grpc/|grpc\.h$", ["proto/rpc_grpc*"]),
    (r"yaml\.h$", ["base/config*"]),
    (r"jansson\.h$", ["base/json.c"]),
    (r"uc[pst]/", ["comm/*ucx*"]),
    (r"microhttpd\.h$", ["net/http_server*"]),
    (r"curl/", ["net/http_client.c"]),
    (r"pcre2\.h$|utf8proc\.h$", ["tokenizer/*"]),
    (r"cuda|cublas|cudnn|nv", ["kernels/cuda/*"]),
    (r"nccl\.h$", ["comm/*nccl*"]),
    (r"criterion/", ["tests/*"]),
]
# The C library and the kernel. Any other <header> is a library that nobody has confined.
SYSTEM = re.compile(r"(sys|net|netinet|arpa|linux)/|"
                    r"(assert|cpuid|ctype|dirent|dlfcn|errno|fcntl|float|ifaddrs|immintrin|inttypes|limits|locale|math|netdb|poll|"
                    r"pthread|sched|semaphore|setjmp|signal|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|"
                    r"string|strings|termios|time|unistd)\.h$")

C_SUFFIXES = (".c", ".h", ".cu", ".cuh")
TEXT_SUFFIXES = C_SUFFIXES + (".py", ".sh", ".cmake", ".txt", ".md", ".proto", ".yaml", ".yml", ".supp", ".mk")
TEXT_NAMES = ("Makefile", "run", ".clang-format", ".gitignore")
# Data, not our prose: kept byte for byte.
DATA = ("models/*", "tests/fuzz/seeds/*", "*/goldens/*", "bench/results/*", "LICENSE")

# Spelt in pieces, so that this file passes its own check.
MARKERS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]) + r")\b")
WORDS = re.compile("|".join(["sub" + "agent", "cla" + "ude", "anth" + "ropic", "issue" + " #"]), re.IGNORECASE)
MACHINE_PATHS = re.compile("|".join(["/wor" + "k/", "/tmp/" + "b-"]))
DISABLED = re.compile(r"^\s*#\s*if\s+" + "0" + r"\s*$")
ENVIRONMENT = re.compile(r"\b(secure_get|get|set|put|unset)env\s*\(")
BACKEND_IF = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif)\b.*\b\w*(CUDA|NCCL|UCX)\w*")
# What the stand-in for Criterion does not have (tests/shim).
NOT_IN_SHIM = re.compile(r"\bParameterizedTest|\bTheory\s*\(|\bcr_(assert|expect)\(\s*(eq|ne|lt|le|gt|ge|all|any|zero|not)\(|"
                         r"criterion/(?!criterion\.h)\w")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')

COLUMNS_C = 100
COLUMNS_OTHER = 120
LINES_C, LINES_H = 600, 150
FUNCTION_NOTE, FUNCTION_MAX, FUNCTION_MAX_TESTS = 80, 100, 150
PARAMETERS_MAX = 6
FILES_NOTE = 25


class Report:
    def __init__(self):
        self.breaches = []
        self.notes = []

    def breach(self, path, line, rule, text):
        self.breaches.append(f"{path}:{line}: {rule}: {text}")

    def note(self, path, line, rule, text):
        self.notes.append(f"note: {path}:{line}: {rule}: {text}")


def list_files(root):
    try:
        out = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, check=True).stdout
        names = [n for n in out.decode().split("\0") if n]
        if names:
            return sorted(n for n in names if os.path.isfile(os.path.join(root, n)))
    except (OSError, subprocess.CalledProcessError):
        pass
    names = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [d for d in subfolders if d not in (".git", "build", "__pycache__")]
        names += [os.path.relpath(os.path.join(folder, f), root) for f in files]
    return sorted(names)


def is_text(path):
    return path.endswith(TEXT_SUFFIXES) or os.path.basename(path) in TEXT_NAMES


def head_comment(lines):
    """The comment that a file opens with (includes may not precede it, blank lines may)."""
    text = "\n".join(lines[:60]).lstrip()
    match = re.match(r"/\*.*?\*/", text, re.DOTALL)
    return " ".join(re.sub(r"\n\s*\*", " ", match.group(0)).split()) if match else ""


def check_include(path, number, quote, target, folder, report):
    for pattern, allowed in THIRD_PARTY:
        if re.match(pattern, target) and folder != "tests":
            if not any(fnmatch.fnmatch(path, a) for a in allowed):
                report.breach(path, number, "third-party", f"{target} belongs in {' '.join(allowed)}")
            return
    if quote == "<" and folder in FLOORS and not SYSTEM.match(target):
        report.breach(path, number, "third-party", f"<{target}> is confined nowhere: give it a row in THIRD_PARTY")
    if quote == "<" or folder not in FLOORS or target in GENERATED:
        return
    top = target.split("/")[0]
    if "/" not in target:
        report.breach(path, number, "floors", f'"{target}": write the folder too')
    elif top not in FLOORS:
        report.breach(path, number, "floors", f'"{target}" is of no floor')
    elif top != folder and (FLOORS[top] >= FLOORS[folder] or top in NEVER.get(folder, ())):
        report.breach(path, number, "floors",
                      f'{folder}/ (floor {FLOORS[folder]}) includes "{target}" (floor {FLOORS[top]})')


def check_guard(path, lines, report):
    directives = [l.strip() for l in lines if l.lstrip().startswith("#")]
    ok = len(directives) >= 3 and directives[0].startswith("#ifndef ") and directives[-1].startswith("#endif")
    ok = ok and directives[1].split()[:2] == ["#define", directives[0].split()[1]]
    if not ok:
        report.breach(path, 1, "guard", "a header needs an include guard around all of it")
    if not lines or not lines[0].startswith("/*"):
        report.breach(path, 1, "head", "a header opens with a comment that says what it is")


def parameters(header):
    """How many parameters the definition has whose text up to its { is `header`."""
    header = re.sub(r"__attribute__\s*\(\(.*?\)\)", "", header)
    end = header.rfind(")")
    depth, start = 0, -1
    for i in range(end, -1, -1):
        depth += header[i] == ")"
        depth -= header[i] == "("
        if depth == 0:
            start = i
            break
    if start < 0:
        return 0
    inside, depth, count = header[start + 1:end].strip(), 0, 1
    if inside in ("", "void"):
        return 0
    for c in inside:
        depth += c in "([{"
        depth -= c in ")]}"
        count += c == "," and depth == 0
    return count


def check_functions(path, lines, folder, report):
    """clang-format puts a function's braces alone in the first column, and nothing else's."""
    limit = FUNCTION_MAX_TESTS if folder == "tests" else FUNCTION_MAX
    begin = None
    for i, line in enumerate(lines):
        if line == "{":
            begin = i
        elif begin is not None and line == "}":
            length = i - begin - 1
            first = begin
            while first > 0 and lines[first - 1].strip() and not re.search(r"(;|\}|\*/|\\)\s*$|^#", lines[first - 1]):
                first -= 1
            header = " ".join(lines[first:begin])
            name = re.search(r"(\w+)\s*\(", header)
            name = name.group(1) if name else "?"
            above = " ".join(lines[max(0, first - 6):first])
            if length > limit:
                report.breach(path, first + 1, "function", f"{name}: {length} lines, at most {limit}")
            elif length > FUNCTION_NOTE:
                report.note(path, first + 1, "function", f"{name}: {length} lines")
            count = parameters(header)
            # A callback whose signature a library dictates says so in the comment above it.
            if count > PARAMETERS_MAX and folder != "tests" and "signature" not in above:
                report.breach(path, first + 1, "parameters", f"{name}: {count}, at most {PARAMETERS_MAX}")
            begin = None


def check_c(path, lines, folder, report):
    head = head_comment(lines)
    limit = LINES_H if path.endswith((".h", ".cuh")) and folder != "tests" else LINES_C
    if len(lines) > limit and f"over {limit} lines because" not in head:
        report.breach(path, 1, "size", f"{len(lines)} lines; say `over {limit} lines because` in the head comment, or split")
    if path.endswith((".h", ".cuh")):
        check_guard(path, lines, report)
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if match:
            check_include(path, number, match.group(1), match.group(2), folder, report)
        if folder == "tests" and not path.startswith("tests/shim/") and NOT_IN_SHIM.search(line):
            report.breach(path, number, "shim", "not in tests/shim/criterion/criterion.h, which runs under TSan")
        if DISABLED.match(line):
            report.breach(path, number, "disabled", "code that is switched off is removed")
        if folder not in OPEN and ENVIRONMENT.search(line):
            report.breach(path, number, "environment", "programs take configuration and flags, no environment")
        if folder in FLOORS and BACKEND_IF.match(line) and not path.startswith(("kernels/cuda/", "comm/")):
            report.breach(path, number, "backend", "backends are left out by whole files")
    check_functions(path, lines, folder, report)


def check_text(path, raw, report):
    """Rules of every text file; returns its lines, or None when it cannot be read as text."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        report.breach(path, 1, "encoding", "not UTF-8")
        return None
    if "\r" in text:
        report.breach(path, text[:text.index("\r")].count("\n") + 1, "newline", "carriage return")
    if text and not text.endswith("\n"):
        report.breach(path, text.count("\n") + 1, "newline", "the last line has no end")
    lines = text.replace("\r", "").split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    columns = COLUMNS_C if path.endswith(C_SUFFIXES) else COLUMNS_OTHER
    for number, line in enumerate(lines, 1):
        if line != line.rstrip():
            report.breach(path, number, "blank", "white space at the end of a line")
        if len(line) > columns and not path.endswith((".md", ".txt", ".supp", ".proto")):
            # Long Python lines are mostly data and messages: advice only.
            say = report.note if path.endswith(".py") else report.breach
            say(path, number, "columns", f"{len(line)} columns, at most {columns}")
        for rule, pattern in (("marker", MARKERS), ("word", WORDS), ("machine", MACHINE_PATHS)):
            match = pattern.search(line)
            if match:
                report.breach(path, number, rule, match.group(0))
    return lines


def check_crowds(files, report):
    crowd = {}
    for path in files:
        if path.endswith(C_SUFFIXES):
            crowd.setdefault(os.path.dirname(path), []).append(path)
    for folder, names in sorted(crowd.items()):
        if len(names) > FILES_NOTE and folder.split("/")[0] in FLOORS:
            report.note(folder, 0, "folder", f"{len(names)} files; more than {FILES_NOTE} want subfolders")


def check_tree(root):
    report = Report()
    files = list_files(root)
    for path in files:
        if any(fnmatch.fnmatch(path, d) for d in DATA) and not path.endswith((".c", ".h", ".py", ".sh", ".md")):
            continue
        if not is_text(path):
            continue
        with open(os.path.join(root, path), "rb") as f:
            lines = check_text(path, f.read(), report)
        if lines is not None and path.endswith(C_SUFFIXES):
            check_c(path, lines, path.split("/")[0], report)
    check_crowds(files, report)
    return report, len(files)


def main():
    default = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    arguments = [a for a in sys.argv[1:] if a != "--notes"]
    report, n_files = check_tree(arguments[0] if arguments else default)
    for line in (report.notes if "--notes" in sys.argv else []) + report.breaches:
        print(line)
    print(f"tidy: {n_files} files, {len(report.breaches)} breaches, {len(report.notes)} notes")
    return 1 if report.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
