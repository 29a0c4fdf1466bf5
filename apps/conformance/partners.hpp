// What node-side components are tried with: a tiny model with a tokenizer, made on the spot; an adapter from the registry; a
// data source that counts what it gives. One thread. Throws NotConcerned when a partner is missing, saying how to give one.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <hansa/adapter.hpp>
#include <hansa/data_source.hpp>
#include <hf/tokenizer.hpp>

#include "conformance/check.hpp"

namespace hansa::conformance {

// Components of a kind that may be partners: the one that the user named, or all but the subject itself. Those of other files
// come before those of the subject's own, more mature ones first, then by name.
std::vector<const HansaComponent*> candidates(const Subject&, std::string_view kind);
[[noreturn]] void no_partner(std::string_view kind, const std::string& why);  // NotConcerned

// With default parameters. Throws what its constructor throws.
template <class Interface>
Instance<Interface> make_partner(const Subject& subject, const HansaComponent& component) {
  return create<Interface>(subject.registry, component, with_defaults(component, Value()), HostServices{.run_seed = 1});
}

// A folder that this model reads: the user's, or a tiny one with random weights and a byte-level tokenizer, made in the
// subject's scratch folder when it is first asked for.
std::filesystem::path checkpoint_for(const Subject&, Model&);
// The tokenizer of the user's checkpoint or of a folder made on the spot: bytes are tokens 0 to 255, then come begin and end.
std::unique_ptr<Tokenizer> tokenizer_for(const Subject&);
inline constexpr std::int64_t kBytes = 256, kTinyVocabulary = 258;

// A real model that somebody is handed. Tensors lent by base() are remembered, so that it shows when they are written to.
class WatchedModel final : public Stateless<Model> {
 public:
  explicit WatchedModel(Model& real) : real_(real) {}
  bool accepts(const std::filesystem::path& checkpoint) const override { return real_.accepts(checkpoint); }
  std::vector<Module> modules(const std::filesystem::path& checkpoint) const override {
    return real_.modules(checkpoint);
  }
  void open(const std::filesystem::path& checkpoint, const Opening& opening) override {
    real_.open(checkpoint, opening);
  }
  void initialise(const std::filesystem::path& checkpoint, const Opening& opening, std::uint64_t seed) override {
    real_.initialise(checkpoint, opening, seed);
  }
  std::int64_t vocabulary() const override { return real_.vocabulary(); }
  std::int64_t max_length() const override { return real_.max_length(); }
  std::pair<at::Tensor, at::Tensor> base(std::string_view module) const override;
  std::vector<std::pair<std::string, at::Tensor>> merged() const override { return real_.merged(); }
  void inject(std::span<const Injection> injections) override { real_.inject(injections); }
  void enable_dropout(std::uint64_t seed) override { real_.enable_dropout(seed); }
  void disable_dropout() override { real_.disable_dropout(); }
  at::Tensor loss(const Batch& batch) override {
    ++passes;
    return real_.loss(batch);
  }
  at::Tensor label_losses(const Batch& batch) override {
    ++passes;
    return real_.label_losses(batch);
  }
  std::unique_ptr<Cache> cache(std::int64_t batch, std::int64_t most) const override {
    return real_.cache(batch, most);
  }
  at::Tensor logits(const Batch& batch, Cache* cache) override {
    ++passes;
    return real_.logits(batch, cache);
  }
  at::Tensor counted_logits(const Batch& batch) override {
    ++passes;
    return real_.counted_logits(batch);
  }
  at::Tensor hidden(const Batch& batch) override {
    ++passes;
    return real_.hidden(batch);
  }

  std::uint64_t passes = 0;  // through the model
  // From here on loans are remembered, until check_base(), which throws Broken when one was written to.
  void watch_base();
  void check_base(const std::string& whose);

 private:
  struct Loan {
    std::string name;
    at::Tensor lent, before;
  };
  Model& real_;
  bool watching_ = false;
  mutable std::vector<Loan> loans_;
};

// An open model of the registry and all that is known about it: the first for whose modules `fits` throws nothing. Throws
// Broken with what it says when it throws for all of them.
struct Bench {
  using Fits = std::function<void(std::span<const Module>)>;
  explicit Bench(const Subject&, const Fits& fits = {});
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  std::filesystem::path checkpoint;
  Instance<Model> real;
  std::vector<Module> modules;
  WatchedModel model;  // this is handed out

  // What the model computes for a fixed batch with what is injected now, and with nothing.
  at::Tensor answers();
  at::Tensor base_answers();  // leaves nothing injected
};

// Batches made up from a seed, in which there is something to learn: documents of `length` tokens and less.
Batch made_up_batch(std::int64_t rows, std::int64_t length, std::int64_t vocabulary, std::uint64_t seed);
// A pair: such a document as the better answer, and one that goes on after the same beginning by another rule.
Batch made_up_pair(std::int64_t length, std::int64_t vocabulary, std::uint64_t seed);

// Documents as a model can learn them, in rows of different lengths, or pairs of them. Counts what it gave.
class Lessons final : public Stateless<DataSource> {
 public:
  // Documents `first` to `first + count` of an endless list.
  Lessons(std::int64_t vocabulary, std::size_t first, std::size_t count, Task task = Task::Language)
      : vocabulary_(vocabulary), first_(first), count_(count), task_(task) {
    rewind();
  }
  void open(const std::filesystem::path&, const Tokenizer*, std::int64_t) override { rewind(); }
  std::uint64_t examples() const override { return count_; }
  void shuffle(std::uint64_t seed) override;
  void rewind() override;
  std::optional<Batch> next(std::int64_t rows) override;

  std::uint64_t batches = 0, documents = 0, tokens = 0, bytes = 0;  // given since it was made
  std::function<void()> on_next = {};

 private:
  void start_pass();
  std::int64_t vocabulary_;
  std::size_t first_, count_, at_ = 0;
  Task task_;
  std::optional<std::uint64_t> seed_;
  std::vector<std::size_t> order_;
};

// Mean loss per counted token over a pass in file order.
double mean_loss(Model&, DataSource&);
// Of pairs: by how many nats the worse answer is less likely than the better one, on average.
double mean_margin(Model&, DataSource&);
// A layout as a number, for traces.
double digest_of(const Layout&);
// Its groups are a partition of its tensors, names are unique, shapes make sense. Throws Broken.
void check_layout(const Layout&, const std::string& whose, std::int64_t smallest_extent = 1);
std::string sentence_of(const std::function<void()>& call);  // what it throws; "" when it throws nothing

}  // namespace hansa::conformance
