// Test plugin: trains a table of integer codes beside each linear layer. Whole numbers cannot be averaged, clipped or noised,
// so `hansa check` refuses it (rule 17); nothing behind the layout is ever asked for.
#include <stdexcept>

#include <hansa/adapter.hpp>
#include <hansa/plugin.hpp>

namespace hansa {
namespace {

[[noreturn]] void never() {
  throw std::logic_error("integer_adapter has a layout and nothing else: it exists for rule 17");
}

class IntegerAdapter final : public Stateless<Adapter> {
 public:
  Layout layout(std::span<const Module> modules, double) const override {
    Layout layout;
    for (const auto& module : modules) {
      if (module.kind != Module::Kind::Linear) continue;
      const auto index = static_cast<Index>(layout.tensors.size());
      layout.tensors.push_back({module.name + ".codes", DType::i32, {module.out}});
      layout.groups.push_back({"", {index}});
    }
    return layout;
  }
  void create(const Model&, std::span<const Module>, double, std::uint64_t) override { never(); }
  at::Tensor parameter(Index) override { never(); }
  std::vector<Injection> injections() override { never(); }
  void export_to(const Model&, std::span<const Module>, const std::string&,
                 const std::filesystem::path&) const override {
    never();
  }
  bool recognises(const std::filesystem::path&) const override { return false; }
  void import_from(const std::filesystem::path&, const Model&, std::span<const Module>) override { never(); }
};

}  // namespace
}  // namespace hansa

HANSA_PLUGIN(org_hansa_test_integer_adapter, "0.1.0") {
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin.add<hansa::IntegerAdapter>("integer_adapter", "A layout of whole numbers; for tests.");
}
