#!/usr/bin/env python3
"""Each rule of tidy.py fires on a planted breach and is silent on the same file without it."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import tidy  # noqa: E402

HEADER = "/* What it is. */\n#ifndef A_H\n#define A_H\n%s\n#endif\n"


def rules(files):
    """The rules that a tree of {path: text} breaks."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as f:
                f.write(text if isinstance(text, bytes) else text.encode())
        report, _ = tidy.check_tree(root)
        return [b.split(": ")[1] for b in report.breaches], report


def function(lines, params="void", above=""):
    return above + f"static int f({params})\n{{\n" + "    g();\n" * lines + "}\n"


class Tidy(unittest.TestCase):
    def fires(self, rule, path, text):
        found, report = rules({path: text})
        self.assertEqual(found, [rule], report.breaches)

    def silent(self, path, text):
        found, report = rules({path: text})
        self.assertEqual(found, [], report.breaches)

    def test_floors(self):
        self.silent("engine/a.c", '#include "base/buf.h"\n#include "engine/b.h"\n#include "model/m.h"\n')
        self.fires("floors", "base/a.c", '#include "proto/p.h"\n')
        self.fires("floors", "proto/a.c", '#include "net/n.h"\n')
        self.fires("floors", "kvtransfer/a.c", '#include "engine/e.h"\n')
        self.fires("floors", "prefill-node/a.c", '#include "decode-node/d.h"\n')
        self.fires("floors", "node/a.c", '#include "router/r.h"\n')
        self.fires("floors", "router/a.c", '#include "engine/e.h"\n')
        self.fires("floors", "router/a.c", '#include "model/m.h"\n')
        self.fires("floors", "model/a.c", '#include "config.h"\n')
        self.fires("floors", "model/a.c", '#include "tests/x.h"\n')
        self.silent("base/a.c", '#include "baton_version.h"\n')
        self.silent("tests/x/a.c", '#include "cli/c.h"\n#include "local.h"\n')
        self.silent("cli/a.c", '#include "router/r.h"\n#include "decode-node/d.h"\n')

    def test_third_party(self):
        cases = [
            ("<grpc/grpc.h>", "proto/rpc_grpc_server.c", "proto/codec_x.c"),
            ("<protobuf-c/protobuf-c.h>", "proto/codec_x.c", "proto/rpc_grpc.c"),
            ('"baton/v1/x.pb-c.h"', "proto/codec_x.c", "proto/message.c"),
            ('"grpc/health/v1/health.pb-c.h"', "proto/codec_x.c", "proto/rpc_grpc.c"),
            ("<yaml.h>", "base/config_yaml.c", "base/json.c"),
            ("<jansson.h>", "base/json.c", "base/buf.c"),
            ("<ucp/api/ucp.h>", "comm/worker_ucx.c", "kvtransfer/transport_ucx.c"),
            ("<ucs/config/types.h>", "comm/ucx.c", "comm/shm.c"),
            ("<microhttpd.h>", "net/http_server.c", "net/http_client.c"),
            ("<curl/curl.h>", "net/http_client.c", "net/http_server.c"),
            ("<pcre2.h>", "tokenizer/regex.c", "base/buf.c"),
            ("<utf8proc.h>", "tokenizer/unicode.c", "model/x.c"),
            ("<cuda_runtime.h>", "kernels/cuda/x.c", "kernels/cpu/x.c"),
            ("<cublas_v2.h>", "kernels/cuda/x.c", "model/x.c"),
            ("<nccl.h>", "comm/nccl.c", "comm/ucx.c"),
            ("<criterion/criterion.h>", "tests/a/b.c", "base/buf.c"),
        ]
        for include, right, wrong in cases:
            with self.subTest(include=include):
                self.silent(right, f"#include {include}\n")
                self.fires("third-party", wrong, f"#include {include}\n")
        self.silent("base/a.c", "#include <sys/mman.h>\n#include <stdio.h>\n")
        self.fires("third-party", "base/a.c", "#include <openssl/evp.h>\n")

    def test_sizes(self):
        self.silent("base/a.c", "int x;\n" * 600)
        self.fires("size", "base/a.c", "int x;\n" * 601)
        self.silent("base/a.c", "/* It is over 600\n * lines because tables are long. */\n" + "int x;\n" * 700)
        self.silent("base/a.h", HEADER % "\n".join(["int x;"] * 146))
        self.fires("size", "base/a.h", HEADER % "\n".join(["int x;"] * 147))

    def test_columns(self):
        self.silent("base/a.c", "/" * 100 + "\n")
        self.silent("base/a.c", "/* " + "\u00e9" * 90 + " */\n")
        self.fires("columns", "base/a.c", "/" * 101 + "\n")
        self.silent("tools/a.sh", "#" * 120 + "\n")
        self.fires("columns", "tools/a.sh", "#" * 121 + "\n")
        _, report = rules({"tools/a.py": "#" * 121 + "\n"})
        self.assertEqual((len(report.notes), len(report.breaches)), (1, 0))

    def test_functions(self):
        self.silent("base/a.c", function(100))
        self.fires("function", "base/a.c", function(101))
        self.silent("tests/a.c", function(150))
        self.fires("function", "tests/a.c", function(151))
        _, report = rules({"base/a.c": function(90)})
        self.assertEqual(len(report.notes), 1)

    def test_parameters(self):
        six = "int a, int b, int (*c)(int, int), int d, int e, int f"
        self.silent("base/a.c", function(1, six))
        self.fires("parameters", "base/a.c", function(1, six + ", int g"))
        self.fires("parameters", "base/a.c", function(1, six + ",\n             int g"))
        self.silent("base/a.c", function(1, six + ", int g", "/* The library's signature. */\n"))

    def test_markers_and_words(self):
        for word in ["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]:
            self.fires("marker", "base/a.c", f"/* {word}: later */\n")
            self.fires("marker", "docs/a.md", f"{word}\n")
        self.silent("base/a.c", "int WHACKS, todo;\n")
        for word in ["sub" + "agent", "Cla" + "ude", "ANTH" + "ROPIC", "see issue" + " #12"]:
            self.fires("word", "docs/a.md", word + "\n")
        self.fires("machine", "tools/a.sh", "cd /wor" + "k/main\n")
        self.fires("machine", "docs/a.md", "/tmp/" + "b-x\n")
        self.silent("docs/a.md", "a network/ folder, the issue tracker\n")

    def test_disabled_code(self):
        self.fires("disabled", "base/a.c", "#if " + "0\nint x;\n#endif\n")
        self.silent("base/a.c", "#if 01\n#endif\n")

    def test_environment(self):
        self.fires("environment", "node/a.c", 'const char *x = get' + 'env("HOME");\n')
        self.fires("environment", "comm/a.c", 'set' + 'env("UCX_TLS", "tcp", 1);\n')
        self.silent("tests/a/a.c", 'const char *x = get' + 'env("HOME");\n')

    def test_backend_ifdef(self):
        self.fires("backend", "engine/a.c", "#ifdef BATON_CUDA\n#endif\n")
        self.silent("kernels/cuda/a.c", "#ifdef BATON_CUDA\n#endif\n")

    def test_shim(self):
        self.fires("shim", "tests/a/a.c", "cr_assert(eq(int, a, b));\n")
        self.fires("shim", "tests/a/a.c", "#include <criterion/parameterized.h>\n")
        self.silent("tests/a/a.c", "#include <criterion/criterion.h>\ncr_assert(equal(a, b));\ncr_assert(a);\n")

    def test_bytes(self):
        self.fires("newline", "base/a.c", "int x;\r\nint y;\n")
        self.fires("newline", "base/a.c", "int x;")
        self.fires("blank", "base/a.c", "int x; \n")
        self.fires("blank", "Makefile", "all:\t\n")
        self.fires("encoding", "base/a.c", b"\xff\n")

    def test_guards(self):
        self.silent("base/a.h", HEADER % "int x;")
        self.fires("guard", "base/a.h", "/* What it is. */\nint x;\n")
        self.fires("guard", "base/a.h", "/* What it is. */\n#ifndef A_H\n#define B_H\n#endif\n")
        self.fires("head", "base/a.h", (HEADER % "int x;").replace("/* What it is. */", ""))

    def test_data_is_left_alone(self):
        self.silent("models/tiny/notes.txt", "TO" + "DO \r\n")
        self.silent("tests/fuzz/seeds/x/y.yaml", "a \r\n")
        self.silent("tests/a/goldens/x.txt", "X" + "XX")


if __name__ == "__main__":
    unittest.main()
