#include "model_commands.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <numbers>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <hf/safetensors.hpp>
#include <hf/tensors.hpp>
#include <nlohmann/json.hpp>

#include <hansa/evaluator.hpp>

#include "allocator.hpp"
#include "devices/devices.hpp"
#include "embeddings.hpp"
#include "generate.hpp"
#include "model_session.hpp"
#include "tensor/packet.hpp"
#include "trust_options.hpp"

namespace hansa {
namespace {

using Json = nlohmann::ordered_json;
using Path = std::filesystem::path;

// A text as the first source reads it that can; `named`: that one alone.
Instance<DataSource> source_of(const StrategyRegistry& registry, const std::string& named, const Path& data,
                               const ModelSession& session) {
  std::string refusals;
  for (const auto* component : registry.components("data_source")) {
    if (!named.empty() && component->id != named) continue;
    auto source = create<DataSource>(registry, *component, with_defaults(*component, Value()), {});
    try {
      guard(source, {.doing = "open"},
            [&](DataSource& one) { one.open(data, session.tokenizer.get(), session.model->max_length()); });
      return source;
    } catch (const std::exception& problem) {
      if (!named.empty()) throw;
      refusals += fmt::format("\n  {}: {}", component->id, problem.what());
    }
  }
  if (!named.empty()) require(registry, DataSource::kKind, named);  // says what there is
  throw Error(fmt::format("no data source reads {}:{}", data.string(), refusals));
}

struct Loss {
  double nats = 0, bytes = 0, counted = 0;
};

// By the first evaluator that measures it; others count other things.
Loss loss_of(const StrategyRegistry& registry, Model& model, DataSource& source) {
  for (const auto* component : registry.components("evaluator")) {
    const auto evaluator = create<Evaluator>(registry, *component, with_defaults(*component, Value()), {});
    source.rewind();
    Loss loss;
    for (const auto& [key, value] :
         guard(evaluator, {.doing = "evaluate"}, [&](Evaluator& one) { return one.evaluate(model, source); })) {
      if (key == "nats") loss.nats = value;
      if (key == "bytes") loss.bytes = value;
      if (key == "tokens") loss.counted = value;
    }
    if (loss.bytes > 0 && loss.counted > 0) return loss;
  }
  return {};
}

}  // namespace

struct ModelCommands::Options {
  Path model, adapter, data, out, tokens, file;
  std::vector<Path> plugin_path;
  std::vector<std::string> texts;
  config::PluginsSection trust;
  std::string prompt, compute = "auto", base_dtype = "compute", device = "auto", source;
  GenerateOptions generate;
  bool json = false, decode = false;
  CLI::App *generate_app = nullptr, *eval_app = nullptr, *logits_app = nullptr, *tokens_app = nullptr,
           *layout_app = nullptr, *embeddings_app = nullptr;

  void add_model(CLI::App& app) {
    app.add_option("--model", model, "A Hugging Face directory")->required()->check(CLI::ExistingDirectory);
    app.add_option("--adapter", adapter, "An adapter's directory (PEFT)")->check(CLI::ExistingDirectory);
    app.add_option("--compute", compute, "auto, f32 or bf16; auto: bf16 where the base is quantised, else f32")
        ->check(CLI::IsMember({"auto", "f32", "bf16"}));
    app.add_option("--base-dtype", base_dtype, "How weights are held: compute, nf4 or int8")
        ->check(CLI::IsMember(base_dtype_names()));
    app.add_option("--device", device, "auto, cpu or cuda:N; auto: the first CUDA device where there is one");
    app.add_option("--plugin-path", plugin_path, "Folder or file with plugins (repeatable)")->allow_extra_args(false);
    add_trust_options(app, trust);
  }
  void scan(StrategyRegistry& registry) const {
    registry.set_trust(policy_of(trust));
    registry.scan(search_paths(plugin_path, {}));
  }
  ModelSession open(const StrategyRegistry& registry) const {
    const auto names = base_dtype_names();
    const auto base = std::find(names.begin(), names.end(), base_dtype) - names.begin();
    const bool half = compute == "bf16" || (compute == "auto" && static_cast<BaseDtype>(base) != BaseDtype::Compute);
    return open_model(registry, {}, model, adapter.empty() ? std::nullopt : std::optional(adapter),
                      {.device = require_device(device),
                       .compute = half ? DType::bf16 : DType::f32,
                       .base = static_cast<BaseDtype>(base)});
  }

  int run_generate() const;
  int run_eval() const;
  int run_logits() const;
  int run_tokens() const;
  int run_layout() const;
  int run_embeddings() const;
};

ModelCommands::ModelCommands(CLI::App& program) : options_(std::make_unique<Options>()) {
  auto& o = *options_;
  auto* generate = o.generate_app =
      program.add_subcommand("generate", "Continue a text with a model, with or without an adapter");
  o.add_model(*generate);
  generate->add_option("--prompt", o.prompt, "The text to continue")->required();
  generate->add_option("--max-tokens", o.generate.max_tokens, "At most so many new tokens")->check(CLI::PositiveNumber);
  generate->add_option("--temperature", o.generate.temperature, "0: always the likeliest token")
      ->check(CLI::NonNegativeNumber);
  generate->add_option("--top-p", o.generate.top_p, "Sample among the likeliest tokens with this probability together")
      ->check(CLI::Range(0.0, 1.0));
  generate->add_option("--seed", o.generate.seed, "The same seed gives the same text");
  generate->add_flag(
      "--json", o.json,
      "One JSON object at the end instead of text: what was generated, its ids, seconds, tokens per second");

  auto* eval = o.eval_app = program.add_subcommand("eval", "Measure a model on text: loss, perplexity, bits per byte");
  o.add_model(*eval);
  eval->add_option("--data", o.data, "A text file or a folder of them")->required()->check(CLI::ExistingPath);
  eval->add_option("--source", o.source, "The data source plugin that reads it (default: the first that can)");
  eval->add_flag("--json", o.json, "One JSON object instead of text");

  auto* inspect = program.add_subcommand("inspect", "Look inside: logits, tokens, layouts")->require_subcommand(1);
  auto* logits = o.logits_app = inspect->add_subcommand("logits", "Logits of token rows, as safetensors");
  o.add_model(*logits);
  logits->add_option("--tokens", o.tokens, "JSON: a list of equally long lists of ids")
      ->required()
      ->check(CLI::ExistingFile);
  logits->add_option("--out", o.out, "Gets the tensor `logits`, fp32, batch x length x vocabulary")->required();
  auto* embeddings = o.embeddings_app = inspect->add_subcommand(
      "embeddings", "Texts as vectors: the mean of the last layer over their tokens, brought to length 1");
  o.add_model(*embeddings);
  embeddings->add_option("--text", o.texts, "A text (repeatable)")->required()->allow_extra_args(false);
  embeddings->add_option("--out", o.out, "Gets the tensor `embeddings`, fp32, texts x width, instead of JSON lines");
  auto* tokens = o.tokens_app =
      inspect->add_subcommand("tokens", "JSON strings in, JSON lists of ids out, line by line");
  tokens->add_option("--model", o.model, "A directory with a tokenizer")->required()->check(CLI::ExistingDirectory);
  tokens->add_flag("--decode", o.decode, "The other way round");
  auto* layout = o.layout_app =
      inspect->add_subcommand("layout", "The tensors of a version file, an upload or a safetensors file");
  layout->add_option("file", o.file, "The file")->required()->check(CLI::ExistingFile);
  layout->add_flag("--json", o.json, "JSON instead of text");
}

ModelCommands::~ModelCommands() = default;

bool ModelCommands::chosen() const {
  const auto& o = *options_;
  for (const auto* app : {o.generate_app, o.eval_app, o.logits_app, o.tokens_app, o.layout_app, o.embeddings_app}) {
    if (app->parsed()) return true;
  }
  return false;
}

int ModelCommands::run() const {
  keep_large_blocks(Keeps::Everything);
  const at::NoGradGuard no_grad;
  const auto& o = *options_;
  if (*o.generate_app) return o.run_generate();
  if (*o.eval_app) return o.run_eval();
  if (*o.logits_app) return o.run_logits();
  if (*o.tokens_app) return o.run_tokens();
  if (*o.embeddings_app) return o.run_embeddings();
  return o.run_layout();
}

int ModelCommands::Options::run_generate() const {
  StrategyRegistry registry;
  scan(registry);
  const auto session = open(registry);
  const auto& tokenizer = session.require_tokenizer(model);
  if (!json) {
    std::cout << prompt << std::flush;
    hansa::generate(*session.model, tokenizer, prompt, generate,
                    [](std::string_view piece) { std::cout << piece << std::flush; });
    std::cout << '\n';
    return 0;
  }
  const auto made = hansa::generate(*session.model, tokenizer, prompt, generate);
  const auto rest = made.seconds - made.first_seconds;
  Json result{{"prompt", prompt},
              {"generated", made.text},
              {"ids", made.ids},
              {"prompt_tokens", made.prompt_tokens},
              {"first_token_seconds", made.first_seconds},
              {"seconds", made.seconds}};
  if (made.ids.size() > 1) result["tokens_per_second"] = static_cast<double>(made.ids.size() - 1) / rest;
  std::cout << result.dump() << '\n';
  return 0;
}

int ModelCommands::Options::run_eval() const {
  StrategyRegistry registry;
  scan(registry);
  const auto session = open(registry);
  const auto silo = source_of(registry, source, data, session);
  const auto [nats, bytes, counted] = loss_of(registry, *session.model, *silo);
  if (counted == 0) throw Error(fmt::format("{} holds nothing to measure", data.string()));
  const Json result{{"loss", nats / counted},
                    {"perplexity", std::exp(nats / counted)},
                    {"nats_per_byte", nats / bytes},
                    {"bits_per_byte", nats / bytes / std::numbers::ln2},
                    {"tokens", counted},
                    {"bytes", bytes}};
  if (json) {
    std::cout << result.dump() << '\n';
    return 0;
  }
  std::cout << fmt::format(
      "loss           {:.6f} nats per token\nperplexity     {:.4f}\nbits per byte  {:.6f}\n{:.0f} tokens, {:.0f} "
      "bytes\n",
      nats / counted, std::exp(nats / counted), nats / bytes / std::numbers::ln2, counted, bytes);
  return 0;
}

int ModelCommands::Options::run_logits() const {
  const auto rows = Json::parse(read_file(tokens)).get<std::vector<std::vector<std::int64_t>>>();
  if (rows.empty() || rows[0].empty()) throw Error(fmt::format("{} holds no ids", tokens.string()));
  StrategyRegistry registry;
  scan(registry);
  const auto session = open(registry);
  std::vector<std::int64_t> flat;
  for (const auto& row : rows) {
    if (row.size() != rows[0].size()) throw Error(fmt::format("{}: the lists must be equally long", tokens.string()));
    for (const auto id : row) {
      if (id < 0 || id >= session.model->vocabulary()) {
        throw Error(
            fmt::format("{}: id {} is outside the vocabulary of {}", tokens.string(), id, session.model->vocabulary()));
      }
      flat.push_back(id);
    }
  }
  Batch batch;
  batch.tokens = at::from_blob(
      flat.data(), {static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows[0].size())}, at::kLong);
  const auto result = guard(session.model, {.doing = "logits"}, [&](Model& m) { return m.logits(batch, nullptr); });
  hf::save_tensors(out, {{"logits", result}});
  return 0;
}

int ModelCommands::Options::run_tokens() const {
  const hf::HfTokenizer tokenizer(model);
  std::string line;
  while (std::getline(std::cin, line)) {
    if (decode)
      std::cout << Json(tokenizer.decode(Json::parse(line).get<std::vector<std::int64_t>>())).dump() << '\n';
    else
      std::cout << Json(tokenizer.encode(Json::parse(line).get<std::string>())).dump() << '\n';
  }
  return 0;
}

int ModelCommands::Options::run_embeddings() const {
  StrategyRegistry registry;
  scan(registry);
  const auto session = open(registry);
  const auto& tokenizer = session.require_tokenizer(model);
  const auto result =
      guard(session.model, {.doing = "embed"}, [&](Model& m) { return text_embeddings(m, tokenizer, texts); });
  if (!out.empty()) {
    hf::save_tensors(out, {{"embeddings", result}});
    return 0;
  }
  for (std::int64_t i = 0; i < result.size(0); ++i) {
    const auto row = result.select(0, i);
    const auto* first = row.const_data_ptr<float>();
    std::cout << Json(std::vector<float>(first, first + row.numel())).dump() << '\n';
  }
  return 0;
}

int ModelCommands::Options::run_layout() const {
  Json list = Json::array();
  const auto add = [&](std::string_view channel, const std::string& name, std::string_view dtype,
                       const std::vector<std::int64_t>& shape) {
    list.push_back({{"channel", channel}, {"name", name}, {"dtype", dtype}, {"shape", shape}});
  };
  if (file.extension() == ".safetensors") {
    const hf::SafetensorsFile tensors(file);
    for (const auto& one : tensors.tensors()) add("", one.name, one.stored_dtype, one.shape);
  } else {
    const MappedFile bytes(file);
    const PacketView view(bytes.bytes());
    for (const auto& channel : view.contents().channels) {
      for (const auto& entry : channel.entries)
        add(channel.name, entry.name, name_of(entry.code.dtype), entry.code.shape);
    }
  }
  if (json) {
    std::cout << list.dump(2) << '\n';
    return 0;
  }
  for (const auto& one : list) {
    std::cout << fmt::format("{:<12}{:<60}{:<6}{}\n", one["channel"].get<std::string>(), one["name"].get<std::string>(),
                             one["dtype"].get<std::string>(), one["shape"].dump());
  }
  return 0;
}

}  // namespace hansa
