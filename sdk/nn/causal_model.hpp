// Turns a decoder (an architecture's forward pass) into a hansa::Model: reading and checking a checkpoint, random weights,
// injections, merging, loss, cached generation. An architecture's plugin supplies a Decoder and a function that reads
// config.json. Training thread only; on the CPU or a CUDA device, in fp32 or bf16. Throws hansa::Error naming file, key or tensor.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <hansa/model.hpp>

#include "nn/architecture.hpp"
#include "nn/attention.hpp"
#include "nn/dropout.hpp"
#include "nn/places.hpp"

namespace hansa::hf {
class Checkpoint;
struct StoredTensor;
}  // namespace hansa::hf

namespace hansa::nn {

struct Pass {          // one forward pass
  const Batch& batch;  // positions are defined
  at::ScalarType compute;
  Dropout& dropout;
  KeyValueCache* cache;
  Kernels kernels = Kernels::Fast;
  bool recompute = false;  // see Opening
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual const DecoderPlan& plan() const = 0;
  virtual void bind(Places&) = 0;               // once, before forward; the places outlive the decoder
  virtual at::Tensor forward(const Pass&) = 0;  // [batch, length, width], what the head sees
};

class CausalModel : public Stateless<Model> {
 public:
  using ReadConfig = std::function<std::unique_ptr<Decoder>(const std::filesystem::path& checkpoint)>;
  // `name` is for messages; model_types: those of config.json that read_config understands.
  // A host, where there is one, hears how many of a file's tensors were skipped.
  CausalModel(std::string name, std::vector<std::string> model_types, ReadConfig read_config, Host* host = nullptr);
  ~CausalModel() override;

  bool accepts(const std::filesystem::path& checkpoint) const override;
  std::vector<Module> modules(const std::filesystem::path& checkpoint) const override;
  void open(const std::filesystem::path& checkpoint, const Opening&) override;
  void initialise(const std::filesystem::path& checkpoint, const Opening&, std::uint64_t seed) override;
  std::int64_t vocabulary() const override;
  std::int64_t max_length() const override;
  std::pair<at::Tensor, at::Tensor> base(std::string_view module) const override;
  std::vector<std::pair<std::string, at::Tensor>> merged() const override;
  void inject(std::span<const Injection>) override;
  void enable_dropout(std::uint64_t seed) override { dropout_.enable(seed, opening_.device); }
  void disable_dropout() override { dropout_.disable(); }
  at::Tensor loss(const Batch&) override;
  at::Tensor label_losses(const Batch&) override;
  std::unique_ptr<Cache> cache(std::int64_t batch, std::int64_t most) const override;
  at::Tensor logits(const Batch&, Cache*) override;
  at::Tensor counted_logits(const Batch&) override;
  at::Tensor hidden(const Batch&) override;

 protected:                                                 // for models with another head
  const DecoderPlan& plan() const;                          // throws before open
  Batch checked(const Batch&, const KeyValueCache*) const;  // on the model's device, but for the labels
  Pass pass(const Batch&, Dropout&, KeyValueCache*) const;
  Decoder& decoder() { return *decoder_; }
  const Decoder& decoder() const { return *decoder_; }
  Dropout& dropout() { return dropout_; }

 private:
  using Weights = std::pair<at::Tensor, at::Tensor>;  // fp32, [out, in]; bias undefined where the module has none
  void prepare(const std::filesystem::path& checkpoint, const Opening&);
  void check_names(const DecoderPlan&) const;
  std::string stored_name(const std::string& tensor) const;  // as the file spells it
  std::string prefixed(const std::string& tensor) const;     // with the file's prefix
  bool starts_fresh(const Module&) const;
  const hf::StoredTensor& stored(const Place&, const std::string& tensor, const std::vector<std::int64_t>& shape) const;
  at::Tensor read(const Place&, const std::string& tensor, const std::vector<std::int64_t>& shape, DType) const;
  Weights read_through(at::Tensor& scratch, const Place&) const;
  Weights read(const Place&, DType) const;
  bool quantises(const Module&) const;
  bool may_be_quantised(const Module&) const;
  std::vector<bool> quantisable() const;  // of all modules
  void require_room(const std::filesystem::path& checkpoint) const;
  [[noreturn]] void ran_out(const std::filesystem::path& checkpoint, const std::string& module);
  void hold(Place&, Weights) const;
  std::pair<at::Tensor, at::Tensor> counted(const Batch&);

  at::Tensor head_logits(const at::Tensor& hidden, Dropout&) const;  // fp32

  std::string name_;
  std::vector<std::string> model_types_;
  ReadConfig read_config_;
  Host* host_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<hf::Checkpoint> checkpoint_;           // mapped: base() reads full precision from it again
  std::map<std::string, Weights, std::less<>> initial_;  // instead of it, where the weights are random
  std::unique_ptr<Places> places_;
  std::shared_ptr<quantised::Workspace> workspace_;  // for quantised weights
  at::ScalarType compute_ = at::kFloat;
  Opening opening_;
  Dropout dropout_;
};

}  // namespace hansa::nn
