"""The official OpenAI client against a cluster: what it can ask for, what it makes of streams, and which exceptions it raises."""
import asyncio
import tempfile

import clients
import cluster

clients.require()
import openai  # noqa: E402  (there only now)

MESSAGES = [{"role": "user", "content": "Tell me a story about a fox and a bird. " * 6}]


class OpenAI(cluster.SharedCase):
    @classmethod
    def setUpClass(cls):
        cls.keys = tempfile.NamedTemporaryFile("w", suffix=".keys")
        cls.keys.write("sk-e2e\n")
        cls.keys.flush()
        cls.c = cluster.up(transport="shm", more=["--api-keys-file", cls.keys.name])
        cls.url = f"http://{cls.c.router.host}:{cls.c.router.port}/v1"
        cls.client = openai.OpenAI(base_url=cls.url, api_key="sk-e2e", max_retries=0, timeout=60)
        cls.model = cls.c.model

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        super().tearDownClass()
        cls.keys.close()

    def test_models(self):
        models = self.client.models.list().data
        self.assertEqual([m.id for m in models], [self.model])
        self.assertEqual(self.client.models.retrieve(self.model).id, self.model)

    def test_completion(self):
        a = self.client.completions.create(model=self.model, prompt="Once upon a time", max_tokens=12, temperature=0, n=2, logprobs=2,
                                           extra_body={"ignore_eos": True})
        self.assertEqual(a.object, "text_completion")
        self.assertEqual([c.index for c in a.choices], [0, 1])
        self.assertEqual(a.choices[0].text, a.choices[1].text)
        self.assertEqual(a.usage.completion_tokens, 24)
        self.assertIsInstance(a.usage.prompt_tokens_details.cached_tokens, int)
        self.assertEqual(len(a.choices[0].logprobs.tokens), 12)
        self.assertTrue(a._request_id)

    def test_completion_stream(self):
        ask = dict(model=self.model, prompt="Once upon a time", max_tokens=20, temperature=0)
        whole = self.client.completions.create(**ask)
        chunks = list(self.client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.choices[0].text for c in chunks if c.choices), whole.choices[0].text)
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)

    def test_scores_of_the_prompt(self):
        """What an evaluation harness asks for: the log probability of a continuation."""
        text = "Once upon a time there was a little fox. " * 10
        ask = dict(model=self.model, prompt=text, echo=True, logprobs=1, temperature=0)
        for max_tokens in (0, 1):
            a = self.client.completions.create(**ask, max_tokens=max_tokens)
            said, n = a.choices[0].logprobs, a.usage.prompt_tokens
            self.assertEqual(a.usage.completion_tokens, max_tokens)
            self.assertEqual([len(said.tokens), len(said.token_logprobs), len(said.top_logprobs), len(said.text_offset)],
                             [n + max_tokens] * 4)
            self.assertIsNone(said.token_logprobs[0])
            self.assertTrue(a.choices[0].text.startswith(text))
            greedy = [max(top, key=top.get) == token for token, top in zip(said.tokens[1:n], said.top_logprobs[1:n])]
            self.assertGreater(sum(greedy), n // 5, "some are what the model expects")
        chunks = list(self.client.completions.create(**ask, max_tokens=2, stream=True))
        self.assertEqual(chunks[0].choices[0].text, text)
        self.assertEqual(chunks[0].choices[0].logprobs.token_logprobs, said.token_logprobs[:n])
        chat = self.client.chat.completions.create(model=self.model, messages=MESSAGES, max_tokens=1, extra_body={"prompt_logprobs": 1})
        self.assertEqual(len(chat.model_extra["prompt_logprobs"]), chat.usage.prompt_tokens)

    def test_completion_of_ids(self):
        a = self.client.completions.create(model=self.model, prompt=[5, 6, 7, 8], max_tokens=3)
        self.assertEqual(a.usage.prompt_tokens, 4)

    def test_chat(self):
        a = self.client.chat.completions.create(model=self.model, messages=MESSAGES, max_completion_tokens=16, temperature=0,
                                                logprobs=True, top_logprobs=2)
        self.assertEqual(a.choices[0].message.role, "assistant")
        self.assertIn(a.choices[0].finish_reason, ("stop", "length"))
        self.assertEqual(len(a.choices[0].logprobs.content[0].top_logprobs), 2)
        self.assertGreater(self.c.kv_bytes(self.c.transport), 0)

    def test_chat_stream(self):
        ask = dict(model=self.model, messages=MESSAGES, max_tokens=32, temperature=0)
        whole = self.client.chat.completions.create(**ask)
        chunks = list(self.client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.total_tokens, whole.usage.total_tokens)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")

    def test_chat_stream_helper(self):
        """The client's own accumulator finds nothing wrong with the chunks."""
        with self.client.chat.completions.stream(model=self.model, messages=MESSAGES, max_tokens=12, temperature=0) as stream:
            for _ in stream:
                pass
            final = stream.current_completion_snapshot  # get_final_completion() raises for "length"
        self.assertEqual(final.choices[0].message.role, "assistant")
        self.assertIsInstance(final.choices[0].message.content, str)
        self.assertIn(final.choices[0].finish_reason, ("stop", "length"))

    def test_close_in_the_middle(self):
        stream = self.client.chat.completions.create(model=self.model, messages=MESSAGES, max_tokens=1500, stream=True,
                                                     extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        self.c.wait_quiet(3)

    def test_many_at_once(self):
        async def go():
            async with openai.AsyncOpenAI(base_url=self.url, api_key="sk-e2e", max_retries=0) as client:
                return await asyncio.gather(*[client.completions.create(model=self.model, prompt=f"Number {i} is", max_tokens=8,
                                                                        temperature=0) for i in range(32)])

        together = asyncio.run(go())
        for i in (0, 13, 31):
            alone = self.client.completions.create(model=self.model, prompt=f"Number {i} is", max_tokens=8, temperature=0)
            self.assertEqual(together[i].choices[0].text, alone.choices[0].text)

    def test_errors(self):
        ask = dict(model=self.model, prompt="Hi", max_tokens=2)
        complete = self.client.completions.create
        for kind, status, fields in ((openai.BadRequestError, 400, {"temperature": 3}), (openai.BadRequestError, 400, {"n": 1000}),
                                     (openai.NotFoundError, 404, {"model": "gpt-17"}),
                                     (openai.BadRequestError, 400, {"prompt": [5] * 4000})):
            with self.assertRaises(kind) as caught:
                complete(**{**ask, **fields})
            self.assertEqual(caught.exception.status_code, status)
            self.assertTrue(caught.exception.message)
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        self.assertIn("maximum context length", caught.exception.message)
        with openai.OpenAI(base_url=self.url, api_key="sk-wrong", max_retries=0) as stranger:
            self.assertRaises(openai.AuthenticationError, stranger.models.list)
            self.assertRaises(openai.AuthenticationError, stranger.completions.create, **ask)
        with openai.OpenAI(base_url=self.url, api_key="sk-e2e", max_retries=0, timeout=0.2) as hasty:
            self.assertRaises(openai.APITimeoutError, hasty.completions.create, model=self.model, prompt="Hi", max_tokens=1900,
                              n=8, extra_body={"ignore_eos": True})
        self.c.wait_quiet(3)


if __name__ == "__main__":
    cluster.main()
