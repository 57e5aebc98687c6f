#!/usr/bin/env python3
"""What JSON Schemas of others become: the published test suite and 448 real schemas of MaskBench with valid and invalid values, through
grammar_tool. Nothing that is invalid may be accepted, nor said by a random walk under the masks (checked with the jsonschema
package where it is installed); what is refused, or valid and not accepted, is counted and shown.

    grammar_report.py TOOL DATA [TOKENIZER]     exits 77 where the data is absent

Values are written with the keys in the order in which the schema declares them, as the grammar wants them."""
import collections
import glob
import gzip
import json
import os
import subprocess
import sys

try:
    import jsonschema
except ImportError:
    jsonschema = None


def ask(tool, questions, tokenizer=None):
    lines = "\n".join(json.dumps(q) for q in questions) + "\n"
    done = subprocess.run([tool] + ([tokenizer] if tokenizer else []), input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line]


def text_of(value):
    return json.dumps(value, ensure_ascii=False)


def lookup(root, ref):
    at = root
    for part in ref[1:].split("/")[1:] if ref.startswith("#") else ():
        part = part.replace("~1", "/").replace("~0", "~")
        at = at[int(part)] if isinstance(at, list) else at.get(part, {}) if isinstance(at, dict) else {}
    return at


def declared(schema, root, seen=frozenset()):
    """Names with their schemas, in the order in which the compiler meets them."""
    if not isinstance(schema, dict) or id(schema) in seen:
        return []
    seen = seen | {id(schema)}
    own = schema.get("properties")
    names = list(own.items()) if isinstance(own, dict) else []
    if isinstance(schema.get("$ref"), str):
        names += declared(lookup(root, schema["$ref"]), root, seen)
    for key in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(key) or []:
            names += declared(part, root, seen)
    required = schema.get("required")
    return names + [(k, {}) for k in required if isinstance(k, str)] if isinstance(required, list) else names


def in_order(value, schema, root):
    if isinstance(value, dict):
        names = {}
        for key, part in declared(schema, root):
            names.setdefault(key, part)
        more = schema.get("additionalProperties", {}) if isinstance(schema, dict) else {}
        keys = [k for k in names if k in value] + [k for k in value if k not in names]
        return {k: in_order(value[k], names.get(k) or more, root) for k in keys}
    if isinstance(value, list):
        for _ in range(5):
            if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
                schema = lookup(root, schema["$ref"])
        items = schema.get("items", {}) if isinstance(schema, dict) else {}
        if isinstance(items, list):
            return [in_order(v, items[i] if i < len(items) else {}, root) for i, v in enumerate(value)]
        return [in_order(v, items, root) for v in value]
    return value


def suite(data):
    for path in sorted(glob.glob(data + "/json/JSON-Schema-Test-Suite/tests/draft2020-12/**/*.json", recursive=True)):
        if os.path.basename(path) in ("format-assertion.json",) or "/format/" in path:
            continue
        for case in json.load(open(path, encoding="utf-8")):
            tests = [(t["data"], t["valid"], True) for t in case["tests"]]
            yield os.path.basename(path)[:-5], case["schema"], tests


def real(data):
    agrees = json.load(open(data + "/json/maskbench/agrees_with_jsonschema_py.json", encoding="utf-8"))
    with gzip.open(data + "/json/maskbench/maskbench_third.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            case = json.loads(line)
            sure = agrees.get(case["name"], [])
            tests = [(t["data"], t["valid"], i < len(sure) and sure[i]) for i, t in enumerate(case["tests"])]
            yield "real", case["schema"], tests


def check_values(tool, cases):
    questions = []
    for _, schema, tests in cases:
        strings = []
        for value, _, _ in tests:
            try:
                strings.append(text_of(in_order(value, schema, schema)))
            except (RecursionError, AttributeError, TypeError, ValueError):
                strings.append(text_of(value))
        questions.append({"kind": "json_schema", "text": text_of(schema), "strings": strings})
    counts = collections.defaultdict(collections.Counter)
    reasons, wrong, times = collections.Counter(), [], {"all": [], "real": []}
    for (name, schema, tests), answer in zip(cases, ask(tool, questions)):
        for kind in {"all", name} & set(times):
            times[kind].append(answer["us"])
        if answer["status"] != "ok":
            counts[name]["schemas refused"] += 1
            reasons[answer["error"].split(": ", 1)[-1][:70]] += 1
            continue
        counts[name]["schemas taken"] += 1
        for (value, valid, sure), accepted in zip(tests, answer["accepts"]):
            if accepted and not valid and sure:
                wrong.append((name, text_of(schema)[:200], text_of(value)[:200]))
            counts[name]["right" if accepted == valid else "valid, not accepted" if valid else "invalid, accepted"] += 1
    return counts, reasons, wrong, times


def check_walks(tool, cases, tokenizer):
    questions = [{"kind": "json_schema", "text": text_of(schema), "walks": 2, "seed": 1, "max": 400} for _, schema, _ in cases]
    bad, ended = [], 0
    for (_, schema, _), answer in zip(cases, ask(tool, questions, tokenizer)):
        for text in answer["walks"]:
            if text is None or text.startswith("the grammar is too ambiguous"):
                continue
            try:
                kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
                fulfils = kind(schema).is_valid(json.loads(text))
            except json.JSONDecodeError:
                fulfils = False
            except Exception:  # the package cannot read the schema
                continue
            ended += 1
            if not fulfils:
                bad.append((text_of(schema)[:300], text[:300]))
    return ended, bad


def main():
    tool, data = sys.argv[1:3]
    if not os.path.isdir(data + "/json/maskbench"):
        print(f"{data} is absent")
        return 77
    cases = list(suite(data)) + list(real(data))
    counts, reasons, wrong, times = check_values(tool, cases)
    for name in sorted(counts):
        print(f"{name:28}", ", ".join(f"{n} {what}" for what, n in sorted(counts[name].items())))
    print("\nrefused:")
    for reason, n in reasons.most_common(40):
        print(f"{n:5}  {reason}")
    print()
    for kind, us in times.items():
        us.sort()
        print(f"compiled in us, {kind}: median {us[len(us) // 2]}, 99 % {us[-len(us) // 100]}, most {us[-1]}")
    bad = []
    if jsonschema and len(sys.argv) > 3:
        ended, bad = check_walks(tool, cases[::3], sys.argv[3])
        print(f"walks that ended: {ended}, of them against the schema: {len(bad)}")
    for item in wrong + bad:
        print("WRONG", *item)
    return 1 if wrong or bad else 0


if __name__ == "__main__":
    sys.exit(main())
