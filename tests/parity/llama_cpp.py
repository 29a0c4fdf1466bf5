"""llama.cpp on a GGUF file, by the PyPI package xllamacpp: the one place that knows it. Plain fp32 caches, one thread of text."""
import json
import urllib.request

import xllamacpp


class LlamaCpp:
    """Serves one file, with adapters if any: ids of a text, and what follows a list of ids, greedily."""

    def __init__(self, model, adapters=(), context=64):
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), 1.0) for path in adapters]
        params.n_ctx = context
        params.n_parallel = 1
        params.warmup = False
        params.fit_params = False
        params.cpuparams.n_threads = 2
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.verbosity = 1
        params.enable_chat_template = False
        params.port = 0
        self.server = xllamacpp.Server(params)

    def _ask(self, path, question):
        request = urllib.request.Request(f"{self.server.listening_address}{path}", json.dumps(question).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def encode(self, text, special=False):
        return self._ask("/tokenize", {"content": text, "add_special": special, "parse_special": True})["tokens"]

    def decode(self, ids):
        return self._ask("/detokenize", {"tokens": ids})["content"]

    def follow(self, ids, count):
        answer = self._ask("/completion", {"prompt": ids, "n_predict": count, "temperature": 0, "return_tokens": True,
                                           "ignore_eos": True, "cache_prompt": False, "samplers": ["temperature"],
                                           "repeat_penalty": 1.0})
        return answer["tokens"]
