"""Exact averaging end to end on a bf16 base: what nodes upload, what stands, what is exported and what PEFT makes of it, as dense
matrices."""

import json

import numpy
import pytest
from study import LANGUAGES, newest
from uploads import uploads_of

EXACT = {"adapter": 'use = "lora"\nr = 4\nalpha = 8', "aggregator": 'use = "fedex_lora"\nweighting = "uniform"',
         "trainer": 'use = "sft"\nsteps = 3\nbatch = 2\nlearning_rate = 0.03'}
SCALE = 8 / 4
IDS = [[1, 40, 99, 7], [3, 3, 250, 12]]


def on_weights(study, **sections):
    fed = study(**EXACT, **sections)
    fed.put_weights()
    return fed


def packet(fed, file):
    return {name: values.astype(numpy.float64) for name, values in fed.tensors(file).items()}


def modules_of(tensors, ending):
    return [name[:-len(ending)] for name in tensors if name.endswith(ending)]


def products(version):
    return {m: SCALE * version[m + ".lora_B"] @ version[m + ".lora_A"] for m in modules_of(version, ".lora_A")}


def residuals(fed, file):
    log = packet(fed, file)
    return {m: log[m + ".residual_B"] @ log[m + ".residual_A"] for m in modules_of(log, ".residual_A")}


def off(found, want):
    """The largest difference of any module, by its largest element."""
    assert found.keys() == want.keys() and found
    return max(numpy.abs(found[m] - want[m]).max() / numpy.abs(want[m]).max() for m in want)


def test_nodes_go_on_with_the_mean_of_the_products_that_they_uploaded(study):
    fed = on_weights(study, rounds=60)
    run = fed.folder / "run"
    (number, uploads), = uploads_of(fed, run, [lambda number: number > 3])
    before = packet(fed, run / "versions" / f"epoch-{number - 1:06}.hansa")
    version = packet(fed, run / "versions" / f"epoch-{number:06}.hansa")
    changes = [packet(fed, file) for file in uploads]
    # The third upload is what the mean of each factor, which is plain, leaves for it.
    changes.append({name: 3 * (version[name] - before[name]) - sum(change[name] for change in changes) for name in before})
    held = [products({name: before[name] + change[name] for name in before}) for change in changes]
    want = {m: sum(one[m] for one in held) / 3 for m in held[0]}
    after = products(version)
    residual = residuals(fed, run / "versions" / f"epoch-{number:06}.log")
    assert off({m: after[m] + residual[m] for m in after}, want) < 1e-5
    assert off(after, want) > 1e-3, "without the residual it is another model"


def heldout_nats_per_byte(fed, model, language):
    """Start token, text, end token, document by document, as PEFT's model foretells them."""
    import torch
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(fed.folder / "base" / "tokenizer.json"))
    end = tokenizer.token_to_id("<|endoftext|>")
    nats = total = 0
    for text in (fed.folder / f"{language}-heldout.txt").read_text().split("%\n"):
        text = text.removesuffix("\n")
        ids = torch.tensor([[end, *tokenizer.encode(text, add_special_tokens=False).ids, end]])
        with torch.no_grad():
            likely = torch.log_softmax(model(ids).logits[0, :-1].double(), -1)
        nats -= likely.gather(1, ids[0, 1:, None]).sum().item()
        total += len(text.encode())
    return nats / total


def test_peft_on_the_original_base_is_the_merged_export_and_has_the_federated_loss(study, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def base(folder):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def logits(model):
        with torch.no_grad():
            return model(torch.tensor(IDS)).logits

    def apart(found, want):
        return ((found - want).abs().max() / want.abs().max()).item()

    fed = on_weights(study, rounds=6)
    run = fed.run("run", config=fed.simulation)
    fed.hansa("export", "--run", run, "--merged", "--out", tmp_path / "merged")
    peft = PeftModel.from_pretrained(base(fed.folder / "base"), run / "adapter")
    merged = logits(base(tmp_path / "merged"))
    assert apart(logits(peft), merged) < 1e-5

    told = json.loads((run / "summary.json").read_text())["loss"]["federated"]
    for language in LANGUAGES:
        assert heldout_nats_per_byte(fed, peft, language) == pytest.approx(told[language], rel=1e-4)

    # The same from the files of the run: base + every residual + s B A. Without the residuals it is another model.
    total = products(packet(fed, newest(run)))
    lost = base(fed.folder / "base")
    add(lost, total)
    assert apart(logits(lost), merged) > 1e-3
    for file in (run / "versions").glob("*.log"):
        total = {m: total[m] + more for m, more in residuals(fed, file).items()}
    whole = base(fed.folder / "base")
    add(whole, total)
    assert apart(logits(whole), merged) < 1e-5


def add(model, changes):
    import torch
    for name, change in changes.items():
        model.get_submodule(name).weight.data += torch.from_numpy(change).float()
