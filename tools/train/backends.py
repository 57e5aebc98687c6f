"""What evaluate.py talks to: a served OpenAI API, or the model folder through transformers."""

import concurrent.futures
import json
import urllib.request


class Served:
    """An OpenAI-compatible server. Only the standard library is needed."""

    def __init__(self, url, model=None, parallel=8, key=None, timeout=300):
        self.url, self.key, self.timeout, self.parallel = url.rstrip("/"), key, timeout, parallel
        self.model = model or self._call("/v1/models")["data"][0]["id"]

    def _call(self, path, body=None):
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = "Bearer " + self.key
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as reply:
            return json.load(reply)

    def map(self, function, items):
        with concurrent.futures.ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(function, items))

    def complete(self, prompt, max_tokens, temperature=0.0, seed=0):
        """(text, finished by itself)"""
        choice = self._call("/v1/completions", {
            "model": self.model, "prompt": prompt, "max_tokens": max_tokens,
            "temperature": temperature, "top_p": 1.0, "seed": seed})["choices"][0]
        return choice["text"], choice["finish_reason"] == "stop"

    def chat(self, messages, max_tokens, temperature=0.0, seed=0):
        choice = self._call("/v1/chat/completions", {
            "model": self.model, "messages": messages, "max_tokens": max_tokens,
            "temperature": temperature, "top_p": 1.0, "seed": seed})["choices"][0]
        return choice["message"]["content"] or "", choice["finish_reason"] == "stop"

    def log_probs(self, text):
        """Log-probabilities of the tokens of `text`, each given what comes before it."""
        choice = self._call("/v1/completions", {
            "model": self.model, "prompt": text, "max_tokens": 0, "echo": True,
            "logprobs": 0})["choices"][0]
        return choice["logprobs"]["token_logprobs"][1:]


class Local:
    """The same through transformers, one sequence at a time; the reference of the served one."""

    def __init__(self, folder, threads=1):
        import torch
        import transformers
        torch.set_num_threads(threads)
        self.torch, self.model_name = torch, folder
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32).eval()

    def map(self, function, items):
        return [function(item) for item in items]

    def _generate(self, ids, max_tokens, temperature, seed):
        """A plain loop: generate() costs more than this small model itself."""
        torch, stop = self.torch, self.model.generation_config.eos_token_id
        source = torch.Generator().manual_seed(seed)
        step, past, new = torch.tensor([ids]), None, []
        with torch.no_grad():
            while len(new) < max_tokens and (not new or new[-1] not in stop):
                out = self.model(step, past_key_values=past, use_cache=True, logits_to_keep=1)
                past, logits = out.past_key_values, out.logits[0, -1]
                if temperature:
                    odds = torch.softmax(logits / temperature, -1)
                    new.append(torch.multinomial(odds, 1, generator=source).item())
                else:
                    new.append(logits.argmax().item())
                step = torch.tensor([[new[-1]]])
        return self.tokenizer.decode(new, skip_special_tokens=True), new[-1] in stop

    def complete(self, prompt, max_tokens, temperature=0.0, seed=0):
        return self._generate(self.tokenizer(prompt)["input_ids"], max_tokens, temperature, seed)

    def chat(self, messages, max_tokens, temperature=0.0, seed=0):
        text = self.tokenizer.apply_chat_template(messages, tokenize=False,
                                                  add_generation_prompt=True)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._generate(ids, max_tokens, temperature, seed)

    def log_probs(self, text):
        torch = self.torch
        ids = torch.tensor([self.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            logits = self.model(ids).logits[0, :-1].log_softmax(-1)
        return logits.gather(1, ids[0, 1:, None])[:, 0].tolist()
