// An adapter that does something to each of some modules. A plugin derives from it and says which tensors a module gets, what
// they start as and how they are injected; this class has layout, parameters, import and export in our own format, and
// modules trained whole (`modules_to_save`) beside. Training thread; layout() is pure. Throws Error naming the adapter.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Generator.h>

#include <hansa/adapter.hpp>

#include "adapters/peft.hpp"
#include "adapters/targets.hpp"

namespace hansa::adapters {

struct Part {  // what trains in one module
  Module module;
  std::vector<TensorSpec> tensors;  // "<module>.lora_A" …
  std::string group{};              // the kind of the group that they are together; "": each is by itself
  double scale = 1;                 // of the group
  bool whole = false;               // the module itself: modules_to_save
};

class ModuleAdapter : public Stateless<Adapter> {
 public:
  Layout layout(std::span<const Module>, double rank) const final;
  void create(const Model&, std::span<const Module>, double rank, std::uint64_t seed) final;
  at::Tensor parameter(Index) final;
  std::vector<Injection> injections() final;
  double rate(Index) const final;
  // In our own format. A kind that PEFT knows overrides all three.
  void export_to(const Model&, std::span<const Module>, const std::string& base,
                 const std::filesystem::path& directory) const override;
  bool recognises(const std::filesystem::path& directory) const override;
  void import_from(const std::filesystem::path& directory, const Model&, std::span<const Module>) override;

 protected:
  using Tensors = std::vector<at::Tensor>;  // of one part, in its order
  ModuleAdapter(std::string name, std::vector<std::string> modules_to_save)
      : name_(std::move(name)), modules_to_save_(std::move(modules_to_save)) {}

  // The parts of a fresh adapter, in the model's order, without those of modules_to_save. Pure. rank 0: the adapter's own.
  virtual std::vector<Part> parts(std::span<const Module>, double rank) const = 0;
  // Before fresh(): what stands beside the parameters, such as factors that do not train.
  virtual void begin(const Model&, const std::vector<Part>&, std::uint64_t /*seed*/) {}
  // The defaults are for whole parts: the module's own tensors, in place of the base's.
  virtual Tensors fresh(const Model&, const Part&, at::Generator&);
  virtual void inject(const Part&, const Tensors&, std::vector<Injection>&) const;
  virtual double rate_of(const TensorSpec&) const { return 1; }
  // For the default import: ends of the tensors' names in their order, and what beside them describes the adapter.
  virtual std::vector<std::string> ends() const { return {}; }
  // Of one module's tensors as they stand in a directory: throws where the shapes do not fit the module.
  virtual void check_stored(const std::filesystem::path&, const Part&) const {}
  virtual Settings settings() const { return {}; }
  virtual void restore(const Settings&) {}

  const std::string& name() const { return name_; }
  std::string who() const { return "adapter " + name_; }  // in messages
  void refuse_rank(double rank) const;                    // for adapters that have none
  // What is held: parts with their tensors; those trained whole come last.
  struct Held {
    Part part;
    Tensors tensors;
  };
  const std::vector<Held>& held() const { return held_; }
  void require_created() const;  // before an export
  std::vector<Whole> wholes() const;
  // Replaces all: what was imported. Parts of whole modules are made from `trained`.
  void adopt(std::vector<Held>, const std::vector<Whole>& trained);
  static TensorSpec spec(const Module&, std::string_view end, std::vector<std::int64_t> shape);
  static Part whole(const Module&);  // all of the module's own tensors

 private:
  std::vector<Part> all_parts(std::span<const Module>, double rank) const;

  std::string name_;
  std::vector<std::string> modules_to_save_;
  std::vector<Held> held_;
  bool imported_ = false;  // the layout is that of held_
};

// The weight's own shape: [out, in]; embedding [in, out]; norm [out].
std::vector<std::int64_t> shape_of(const Module&);
// The word for modules trained whole: those that hold tensors.
bool holds_tensors(const Module&);

}  // namespace hansa::adapters
