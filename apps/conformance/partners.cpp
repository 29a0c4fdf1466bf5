#include "conformance/partners.hpp"

#include <algorithm>
#include <fstream>
#include <random>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <hf/byte_alphabet.hpp>
#include <hf/tensors.hpp>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "base/file.hpp"
#include "conformance/probes.hpp"

namespace hansa::conformance {
namespace {

using nlohmann::json;

constexpr const char* kBegin = "<begin>";
constexpr const char* kEnd = "<end>";

// The keys that most decoders share.
json decoder_config(const std::string& type, const std::string& inner) {
  return {{"model_type", type},
          {"hidden_size", 16},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {inner, 24},
          {"vocab_size", kTinyVocabulary},
          {"initializer_range", 0.2},
          {"max_position_embeddings", 128}};
}

// And those with grouped heads.
json grouped_config(const std::string& type) {
  auto config = decoder_config(type, "intermediate_size");
  config.update({{"num_key_value_heads", 1}, {"head_dim", 8}});
  return config;
}

// What models of families whose configs are public ask for, and a bare one that carries the subject's own name.
std::vector<json> tiny_configs(const std::string& own_type) {
  return {{{"model_type", "llama"},
           {"hidden_size", 16},
           {"intermediate_size", 24},
           {"num_hidden_layers", 2},
           {"num_attention_heads", 2},
           {"num_key_value_heads", 1},
           {"vocab_size", kTinyVocabulary},
           {"max_position_embeddings", 128},
           {"attention_bias", true},
           {"mlp_bias", true},
           {"initializer_range", 0.2}},
          {{"model_type", "gpt2"},
           {"n_embd", 16},
           {"n_layer", 2},
           {"n_head", 2},
           {"vocab_size", kTinyVocabulary},
           {"n_positions", 128},
           {"initializer_range", 0.2}},
          grouped_config(own_type),
          decoder_config(own_type, "intermediate_size"),
          decoder_config(own_type, "ffn_dim"),
          grouped_config(own_type + "_text"),  // the text half of a family that also sees
          {{"model_type", own_type},           // names of a family that has its own
           {"dim", 16},
           {"hidden_dim", 24},
           {"n_layers", 2},
           {"n_heads", 2},
           {"vocab_size", kTinyVocabulary},
           {"initializer_range", 0.2},
           {"max_position_embeddings", 128}},
          {{"model_type", own_type}, {"vocab_size", kTinyVocabulary}}};
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  write_file_atomically(path, text, Durability::Process);
}

void write_tokenizer(const std::filesystem::path& folder) {
  auto vocabulary = json::object();
  for (int byte = 0; byte < kBytes; ++byte) {
    std::string character;
    const char raw = static_cast<char>(byte);
    hf::append_as_characters(character, {&raw, 1});
    vocabulary[character] = byte;
  }
  const auto special = [](const char* text, std::int64_t id) {
    return json{{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  const json level{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  write_text(folder / "tokenizer.json",
             json{{"version", "1.0"},
                  {"added_tokens", {special(kBegin, kBytes), special(kEnd, kBytes + 1)}},
                  {"normalizer", nullptr},
                  {"pre_tokenizer", level},
                  {"post_processor", nullptr},
                  {"decoder", level},
                  {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}}}}
                 .dump());
  write_text(folder / "tokenizer_config.json", json{{"bos_token", kBegin}, {"eos_token", kEnd}}.dump());
}

// Biases and norms too get values of their own: zeros and ones hide mistakes.
void write_weights(Model& model, const std::filesystem::path& folder) {
  const at::NoGradGuard no_grad;
  model.initialise(folder, {}, 7);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  std::uint64_t seed = 11;
  for (const auto& [name, tensor] : model.merged()) {
    const double sigma = tensor.dim() == 1 ? 0.1 : 0;
    tensors.emplace_back(name, (tensor + random_tensor(tensor.sizes().vec(), ++seed, sigma)).contiguous());
  }
  hf::save_tensors(folder / "model.safetensors", tensors);
}

bool reads(Model& model, const std::filesystem::path& folder) {
  try {
    return model.accepts(folder) && !model.modules(folder).empty();
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

std::vector<const HansaComponent*> candidates(const Subject& subject, std::string_view kind) {
  if (const auto named = subject.with.find(std::string(kind)); named != subject.with.end()) {
    if (const auto* found = subject.registry.find(kind, named->second)) return {found};
    no_partner(kind,
               fmt::format("there is no {} '{}'; --plugin-path names the folder of its plugin", kind, named->second));
  }
  auto all = subject.registry.components(kind);
  std::erase(all, &subject.component);
  const auto* own_file = &subject.registry.file_of(subject.component);
  const auto order = [&](const HansaComponent* c) {
    return std::tuple(&subject.registry.file_of(*c) == own_file, -static_cast<int>(c->maturity),
                      std::string_view(c->id));
  };
  std::ranges::sort(all, {}, order);
  return all;
}

void no_partner(std::string_view kind, const std::string& why) {
  throw NotConcerned(
      fmt::format("it needs a partner of kind '{0}': {1}. Give one: --plugin-path FOLDER, --with {0}=NAME", kind, why));
}

std::filesystem::path checkpoint_for(const Subject& subject, Model& model) {
  if (!subject.checkpoint.empty()) {
    if (reads(model, subject.checkpoint)) return subject.checkpoint;
    throw NotConcerned(fmt::format("this model does not read the checkpoint {}", subject.checkpoint.string()));
  }
  const auto folder = subject.scratch / "checkpoints";
  int number = 0;
  for (const auto& config : tiny_configs(subject.component.id)) {
    const auto at = folder / std::to_string(++number);
    if (!std::filesystem::exists(at / "config.json")) {
      std::filesystem::create_directories(at);
      write_text(at / "config.json", config.dump());
      write_tokenizer(at);
    }
    if (!reads(model, at)) continue;
    if (!std::filesystem::exists(at / "model.safetensors")) write_weights(model, at);
    return at;
  }
  throw NotConcerned(fmt::format(
      "no tiny checkpoint could be made for it: it reads none with model_type \"llama\", \"gpt2\" or \"{}\". "
      "Give a small one: --checkpoint FOLDER",
      subject.component.id));
}

std::unique_ptr<Tokenizer> tokenizer_for(const Subject& subject) {
  if (!subject.checkpoint.empty()) {
    if (!hf::has_tokenizer(subject.checkpoint))
      throw NotConcerned(fmt::format("the checkpoint {} has no tokenizer.json", subject.checkpoint.string()));
    return std::make_unique<hf::HfTokenizer>(subject.checkpoint);
  }
  const auto folder = subject.scratch / "tokenizer";
  if (!std::filesystem::exists(folder)) {
    std::filesystem::create_directories(folder);
    write_tokenizer(folder);
  }
  return std::make_unique<hf::HfTokenizer>(folder);
}

// ---- the model as others see it

std::pair<at::Tensor, at::Tensor> WatchedModel::base(std::string_view module) const {
  auto tensors = real_.base(module);
  if (!watching_) return tensors;
  for (const auto& tensor : {tensors.first, tensors.second})
    if (tensor.defined()) loans_.push_back({std::string(module), tensor, tensor.detach().clone()});
  return tensors;
}

void WatchedModel::watch_base() {
  watching_ = true;
  loans_.clear();
}

void WatchedModel::check_base(const std::string& whose) {
  watching_ = false;
  const auto loans = std::exchange(loans_, {});
  for (const auto& loan : loans)
    hold(same_bits(loan.lent.detach(), loan.before),
         fmt::format("{} wrote to the base's tensor of module '{}'", whose, loan.name));
}

namespace {

Instance<Model> model_partner(const Subject& subject, const Bench::Fits& fits, std::filesystem::path& checkpoint) {
  std::string why = "none is loaded that reads the checkpoint", unfit;
  for (const auto* component : candidates(subject, "model")) {
    try {
      auto model = make_partner<Model>(subject, *component);
      checkpoint = checkpoint_for(subject, *model);
      model->open(checkpoint, {});
      const auto modules = model->modules(checkpoint);
      const auto said = fits ? sentence_of([&] { fits(modules); }) : std::string();
      if (said.empty()) return model;
      if (unfit.empty()) unfit = fmt::format("with model {}: {}", component->id, said);
    } catch (const NotConcerned&) {  // not this one
    } catch (const std::exception&) {
      why = fmt::format("{} fails: {}", component->id, plain_message());
    }
  }
  if (!unfit.empty())
    throw Broken(unfit + ". If it is meant for other models, give one: --with model=NAME, --checkpoint FOLDER",
                 subject.seed, "the modules of every model that is loaded");
  no_partner("model", why);
}

}  // namespace

Bench::Bench(const Subject& subject, const Fits& fits)
    : real(model_partner(subject, fits, checkpoint)), modules(real->modules(checkpoint)), model(*real) {}

at::Tensor Bench::answers() { return real->logits(made_up_batch(2, 7, real->vocabulary(), 77), nullptr); }

at::Tensor Bench::base_answers() {
  real->inject({});
  return answers();
}

// ---- data

Batch made_up_batch(std::int64_t rows, std::int64_t length, std::int64_t vocabulary, std::uint64_t seed) {
  Batch batch;
  batch.tokens = at::zeros({rows, length}, at::kLong);
  batch.labels = at::full({rows, length}, -100, at::kLong);
  auto* tokens = batch.tokens.mutable_data_ptr<std::int64_t>();
  auto* labels = batch.labels.mutable_data_ptr<std::int64_t>();
  const auto range = std::min<std::int64_t>(vocabulary, 31);  // few tokens, each often: soon learnt
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto kind = static_cast<std::int64_t>((seed + static_cast<std::uint64_t>(row)) % 1000003);
    const auto inputs = std::max<std::int64_t>(1, length - kind % 3);
    std::int64_t token = (7 * kind) % range;
    for (std::int64_t i = 0; i < inputs; ++i) {
      tokens[row * length + i] = token;
      token = (token + 3 + (i + kind) % 2) % range;
      labels[row * length + i] = token;
    }
    batch.counted += inputs;
  }
  batch.bytes = batch.counted;
  batch.documents = rows;
  return batch;
}

Batch made_up_pair(std::int64_t length, std::int64_t vocabulary, std::uint64_t seed) {
  constexpr std::int64_t kPrompt = 3;
  const auto better = made_up_batch(1, length, vocabulary, seed);
  Batch pair{.tokens = better.tokens.repeat({2, 1}),
             .labels = better.labels.repeat({2, 1}),
             .documents = 1,
             .task = Task::Preference};
  auto* tokens = pair.tokens.mutable_data_ptr<std::int64_t>() + length;
  auto* labels = pair.labels.mutable_data_ptr<std::int64_t>() + length;
  const auto range = std::min<std::int64_t>(vocabulary, 31);
  for (auto i = kPrompt; i < length; ++i) {
    if (labels[i] < 0) break;
    tokens[i] = (tokens[i - 1] + 8) % range;
    labels[i] = (tokens[i] + 8) % range;
  }
  pair.labels.narrow(1, 0, kPrompt - 1).fill_(-100);
  pair.labels.select(0, 1).select(0, kPrompt - 1).fill_(tokens[kPrompt]);
  pair.counted = pair.labels.ge(0).sum().item<std::int64_t>();
  pair.bytes = pair.counted;
  return pair;
}

void Lessons::start_pass() {
  order_.resize(count_);
  for (std::size_t i = 0; i < count_; ++i) order_[i] = i;
  at_ = 0;
  if (!seed_) return;
  std::mt19937_64 engine(*seed_);
  for (std::size_t left = count_; left > 1; --left) std::swap(order_[left - 1], order_[engine() % left]);
}
void Lessons::shuffle(std::uint64_t seed) {
  seed_ = seed;
  start_pass();
}
void Lessons::rewind() {
  seed_.reset();
  start_pass();
}

std::optional<Batch> Lessons::next(std::int64_t rows) {
  constexpr std::int64_t kLength = 12;
  if (on_next) on_next();
  std::vector<Batch> found;
  const bool pairs = task_ == Task::Preference;
  const auto wanted = static_cast<std::size_t>(pairs ? std::max<std::int64_t>(1, rows / 2) : rows);
  while (found.size() < wanted) {
    if (at_ == order_.size()) {
      if (!seed_) break;
      ++*seed_;
      start_pass();
    }
    const auto document = first_ + order_[at_++];
    found.push_back(pairs ? made_up_pair(kLength, vocabulary_, document)
                          : made_up_batch(1, kLength, vocabulary_, document));
  }
  if (found.empty()) return std::nullopt;
  const std::int64_t each = pairs ? 2 : 1, count = static_cast<std::int64_t>(found.size());
  Batch batch{.task = task_};
  batch.tokens = at::zeros({each * count, kLength}, at::kLong);
  batch.labels = at::zeros({each * count, kLength}, at::kLong);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto& one = found[static_cast<std::size_t>(i)];
    batch.tokens.narrow(0, each * i, each).copy_(one.tokens);
    batch.labels.narrow(0, each * i, each).copy_(one.labels);
    batch.counted += one.counted;
  }
  batch.bytes = 2 * batch.counted;
  batch.documents = count;
  ++batches;
  documents += static_cast<std::uint64_t>(batch.documents);
  tokens += static_cast<std::uint64_t>(batch.counted);
  bytes += static_cast<std::uint64_t>(batch.bytes);
  return batch;
}

double mean_loss(Model& model, DataSource& data) {
  const at::NoGradGuard no_grad;
  data.rewind();
  double nats = 0, tokens = 0;
  while (const auto batch = data.next(16)) {
    nats += model.loss(*batch).item<double>();
    tokens += static_cast<double>(batch->counted);
  }
  return nats / tokens;
}

double mean_margin(Model& model, DataSource& data) {
  const at::NoGradGuard no_grad;
  data.rewind();
  double nats = 0, pairs = 0;
  while (const auto batch = data.next(16)) {
    const auto rows = model.label_losses(*batch).sum(1).view({-1, 2});
    nats += (rows.select(1, 1) - rows.select(1, 0)).sum().item<double>();
    pairs += static_cast<double>(rows.size(0));
  }
  return nats / pairs;
}

// ---- layouts

double digest_of(const Layout& layout) {
  std::string text;
  for (const auto& tensor : layout.tensors)
    text += fmt::format("{} {} {};", tensor.name, name_of(tensor.dtype), shapes_text({tensor.shape}));
  for (const auto& group : layout.groups) {
    text += fmt::format("{} {}:", group.kind, group.scale);
    for (auto member : group.members) text += fmt::format(" {}", member);
  }
  return static_cast<double>(xxh3_64(text) >> 11);  // what a double holds
}

void check_layout(const Layout& layout, const std::string& whose, std::int64_t smallest_extent) {
  std::set<std::string> names;
  for (const auto& tensor : layout.tensors) {
    hold(!tensor.name.empty() && names.insert(tensor.name).second,
         fmt::format("{} has the name '{}' twice or an empty one", whose, tensor.name));
    for (auto extent : tensor.shape)
      hold(extent >= smallest_extent,
           fmt::format("{}: '{}' has the shape {}", whose, tensor.name, shapes_text({tensor.shape})));
  }
  std::vector<int> seen(layout.tensors.size());
  for (const auto& group : layout.groups) {
    hold(!group.members.empty(), fmt::format("{} has a group without members", whose));
    for (auto member : group.members) {
      hold(member < seen.size(),
           fmt::format("{} has a group with the member {}, and {} tensors", whose, member, seen.size()));
      ++seen[member];
    }
  }
  for (std::size_t i = 0; i < seen.size(); ++i)
    hold(seen[i] == 1, fmt::format("{}: '{}' is in {} groups; groups are a partition, a lone tensor a group of one",
                                   whose, layout.tensors[i].name, seen[i]));
}

std::string sentence_of(const std::function<void()>& call) {
  try {
    call();
  } catch (...) {
    const auto text = plain_message();
    return text.empty() ? "(nothing)" : text;
  }
  return {};
}

}  // namespace hansa::conformance
