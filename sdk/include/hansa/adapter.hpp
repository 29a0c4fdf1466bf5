// Kind "adapter": which parameters train, as injections into named modules. Node side, training thread; layout() also on
// the coordinator, which has config.json only.
#pragma once
#include <hansa/model.hpp>

namespace hansa {

class Adapter : public Component {
 public:
  using InterfaceType = Adapter;
  static constexpr std::string_view kKind = "adapter/1";
  // Pure; throws when nothing matches, saying what exists. `rank` is a node's own (NodeFacts); 0: the adapter's parameter.
  virtual Layout layout(std::span<const Module> modules, double rank) const = 0;
  // Fresh parameters (fp32, requires_grad) in the layout's order. The same seed gives the same bits.
  virtual void create(const Model&, std::span<const Module> modules, double rank, std::uint64_t seed) = 0;
  virtual at::Tensor parameter(Index) = 0;          // live, not a copy
  virtual std::vector<Injection> injections() = 0;  // asked for again after each receive()
  // What the trainer's learning rate is multiplied with for this parameter (LoRA+). Pure; after create() or import_from().
  virtual double rate(Index) const { return 1; }
  // A channel of the aggregator's, such as a residual for frozen weights. The default knows none.
  virtual void receive(Model&, const Download& download) {
    throw std::runtime_error("this adapter has no use for channel '" + download.channel + "'; choose one that does");
  }
  // A directory others can load (PEFT for what PEFT knows). `base` is written as base_model_name_or_path.
  virtual void export_to(const Model&, std::span<const Module>, const std::string& base,
                         const std::filesystem::path& directory) const = 0;
  // Is this directory one that export_to of this kind of adapter could have written?
  virtual bool recognises(const std::filesystem::path& directory) const = 0;
  // Replaces create(): the layout comes from the directory. Throws on keys it does not support, by name.
  virtual void import_from(const std::filesystem::path& directory, const Model&, std::span<const Module>) = 0;
};

}  // namespace hansa
