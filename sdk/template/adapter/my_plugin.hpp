// Adapter "my_plugin": trains the biases of the modules that have one, from the base's values on (arXiv 2106.10199). Replace what
// is injected; keep to the rules of hansa/adapter.hpp: the layout follows from the modules alone, and the base is not written to.
#pragma once
#include <string>
#include <vector>

#include <hansa/adapter.hpp>

namespace example {

struct Params {  // the initialisers are the defaults
  std::vector<std::string> targets = {};
};

class MyPlugin final : public hansa::Stateless<hansa::Adapter> {
 public:
  explicit MyPlugin(Params params) : params_(std::move(params)) {}
  hansa::Layout layout(std::span<const hansa::Module> modules, double rank) const override;
  void create(const hansa::Model&, std::span<const hansa::Module>, double rank, std::uint64_t seed) override;
  at::Tensor parameter(hansa::Index index) override { return biases_.at(index).value; }
  std::vector<hansa::Injection> injections() override;
  void export_to(const hansa::Model&, std::span<const hansa::Module>, const std::string& base,
                 const std::filesystem::path& directory) const override;
  bool recognises(const std::filesystem::path& directory) const override;
  void import_from(const std::filesystem::path& directory, const hansa::Model&,
                   std::span<const hansa::Module>) override;

 private:
  struct Bias {
    std::string module;
    at::Tensor weight, value;  // the weight is the base's and stays
  };
  bool chosen(const hansa::Module&) const;

  Params params_;
  std::vector<Bias> biases_;  // in the layout's order
};

}  // namespace example
