"""GGUF: as much of reading and writing them as the scripts here need. Standard library only."""
import os
import struct

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", 11: "q", 12: "d"}
# Name -> ggml's number, values per block, bytes per block, general.file_type.
TYPES = {"F32": (0, 1, 4, 0), "F16": (1, 1, 2, 1), "BF16": (30, 1, 2, 32),
         "Q8_0": (8, 32, 34, 7), "Q4_0": (2, 32, 18, 2)}
NAMES = {number: name for name, (number, _, _, _) in TYPES.items()}


def type_bytes(name, count):
    _, values, size, _ = TYPES[name]
    return count // values * size


# ---- writing ----

def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def pair(key, value):
    """A key with a string, a float, an unsigned number, or a list of strings or of signed numbers."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        return text(key) + struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(text, value))
    if isinstance(value, list):
        return text(key) + struct.pack(f"<IIQ{len(value)}i", ARRAY, I32, len(value), *value)
    if isinstance(value, str):
        return text(key) + struct.pack("<I", STRING) + text(value)
    if isinstance(value, bool):
        return text(key) + struct.pack("<I?", BOOL, value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", F32, value)
    return text(key) + struct.pack("<II", U32, value)


def padding(size):
    return -size % ALIGNMENT


def write(path, metadata, tensors, fill):
    """tensors: (name, type, sizes, fastest first). fill(file, tensor) writes exactly the bytes of a tensor."""
    head = MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata))
    head += b"".join(pair(k, v) for k, v in metadata.items())
    offset = 0
    for name, kind, sizes in tensors:
        head += text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, TYPES[kind][0], offset)
        size = type_bytes(kind, product(sizes))
        offset += size + padding(size)
    part = path + ".part"
    with open(part, "wb") as f:
        f.write(head + bytes(padding(len(head))))
        for tensor in tensors:
            before = f.tell()
            fill(f, tensor)
            f.write(bytes(padding(f.tell() - before)))
    os.replace(part, path)


def product(sizes):
    n = 1
    for s in sizes:
        n *= s
    return n


# ---- reading ----

class Reader:
    def __init__(self, f):
        self.f = f

    def number(self, code):
        return struct.unpack("<" + code, self.f.read(struct.calcsize("<" + code)))[0]

    def text(self):
        return self.f.read(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind):
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            inner, n = self.number("I"), self.number("Q")
            return [self.value(inner) for _ in range(n)]
        return self.number(SCALARS[kind])


def read(path):
    """Metadata, and the tensors as {name: (type, sizes, bytes)}; bytes from where the next one starts."""
    with open(path, "rb") as f:
        r = Reader(f)
        if f.read(4) != MAGIC or r.number("I") != VERSION:
            raise ValueError(f"{path}: not a GGUF file of version {VERSION}")
        n_tensors, n_pairs = r.number("Q"), r.number("Q")
        metadata = {}
        for _ in range(n_pairs):
            key = r.text()
            metadata[key] = r.value(r.number("I"))
        infos = []
        for _ in range(n_tensors):
            name = r.text()
            sizes = [r.number("Q") for _ in range(r.number("I"))]
            kind, offset = r.number("I"), r.number("Q")
            infos.append((offset, name, kind, sizes))
        alignment = metadata.get("general.alignment", ALIGNMENT)
        end = os.path.getsize(path) - (f.tell() + -f.tell() % alignment)
    infos.sort()
    ends = [offset for offset, _, _, _ in infos[1:]] + [end]
    return metadata, {name: (NAMES.get(kind, f"type {kind}"), sizes, after - offset)
                      for (offset, name, kind, sizes), after in zip(infos, ends)}


def facts(path):
    """What a token costs: its weights' bytes in the file's coding, its multiply-adds, its bytes of KV at 2 a value."""
    metadata, tensors = read(path)
    arch = metadata["general.architecture"]

    def of(key, default=None):
        return metadata.get(f"{arch}.{key}", default)

    heads, layers, hidden = of("attention.head_count"), of("block_count"), of("embedding_length")
    kv_heads = of("attention.head_count_kv", heads)
    dim = of("attention.key_length", hidden // heads)
    share = of("expert_used_count", 0) / of("expert_count") if of("expert_count", 0) else 1
    tied = "output.weight" not in tensors
    size = parameters = dense = experts = matrices = head = 0
    for name, (_, sizes, n_bytes) in tensors.items():
        part = share if "_exps." in name else 1
        size += n_bytes
        parameters += product(sizes)
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            head = product(sizes)
            dense += n_bytes
        elif name != "token_embd.weight":
            experts += n_bytes if "_exps." in name else 0
            dense += 0 if "_exps." in name else n_bytes
            matrices += product(sizes) * part if len(sizes) > 1 else 0
    kinds = [kind for kind, sizes, _ in tensors.values() if len(sizes) > 1]
    return {"architecture": arch, "type": max(set(kinds), key=kinds.count), "parameters": parameters, "bytes": size,
            "bits_per_weight": round(8 * size / parameters, 3), "bytes_per_token": int(dense + experts * share),
            "dense_bytes": dense, "expert_bytes": experts, "share_of_experts": share if experts else 0,
            "matrix_parameters_per_token": int(matrices), "head_parameters": head,
            "kv_bytes_per_token": 2 * 2 * layers * kv_heads * dim, "attention_width": layers * heads * dim}
