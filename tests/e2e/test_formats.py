"""Other ways to hold a model: a GGUF file is served as the folder that it came from, over a prefill and a decode node."""
import os
import unittest

import cluster

SHARED = os.path.join(cluster.SOURCE, "..", "shared", "data", "models")


class Formats(unittest.TestCase):
    def say(self, model):
        with cluster.up(model=model, transport="shm") as c:
            ids = c.post("/tokenize", {"prompt": "Once upon a time there was a girl named"}).json["tokens"]
            body = {"prompt": ids * 6, "max_tokens": 40, "temperature": 0, "logprobs": 1}
            choice = c.complete(body)["choices"][0]
            self.assertGreater(c.kv_bytes("shm"), 0)
            return c.model, ids, choice["text"]

    def test_gguf_file(self):
        folder = os.path.join(SHARED, "hf", "stories260K")
        file = os.path.join(SHARED, "stories260K", "stories260K-f32.gguf")
        if not (os.path.exists(folder) and os.path.exists(file)):
            self.skipTest("no shared models")
        _, ids, text = self.say(folder)
        name, gguf_ids, gguf_text = self.say(file)
        self.assertEqual(name, "stories260K-f32")
        self.assertEqual(gguf_ids, ids)
        self.assertEqual(gguf_text, text)
        self.assertGreater(len(text), 40)


if __name__ == "__main__":
    cluster.main()
