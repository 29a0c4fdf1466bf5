// Stand-ins for tests of components that are handed a Model or a Host and use little of it. Whatever is not overridden
// throws.
#pragma once
#include <stdexcept>

#include <hansa/model.hpp>

namespace hansa::testing {

class BareModel : public Stateless<Model> {
 public:
  bool accepts(const std::filesystem::path&) const override { none(); }
  std::vector<Module> modules(const std::filesystem::path&) const override { none(); }
  void open(const std::filesystem::path&, const Opening&) override { none(); }
  void initialise(const std::filesystem::path&, const Opening&, std::uint64_t) override { none(); }
  std::int64_t vocabulary() const override { none(); }
  std::int64_t max_length() const override { none(); }
  std::pair<at::Tensor, at::Tensor> base(std::string_view) const override { none(); }
  std::vector<std::pair<std::string, at::Tensor>> merged() const override { none(); }
  void inject(std::span<const Injection>) override { none(); }
  void enable_dropout(std::uint64_t) override {}
  void disable_dropout() override {}
  at::Tensor loss(const Batch&) override { none(); }
  at::Tensor label_losses(const Batch&) override { none(); }
  std::unique_ptr<Cache> cache(std::int64_t, std::int64_t) const override { none(); }
  at::Tensor logits(const Batch&, Cache*) override { none(); }
  at::Tensor counted_logits(const Batch&) override { none(); }
  at::Tensor hidden(const Batch&) override { none(); }

 private:
  [[noreturn]] static void none() { throw std::logic_error("this stand-in for a model does not do that"); }
};

class QuietHost : public Host {
 public:
  void log(Level, std::string_view message) override { logged.emplace_back(message); }
  void progress(std::uint64_t, std::uint64_t) override {}
  bool cancelled() const override { return cancel; }
  void parallel_for(std::size_t n, const std::function<void(std::size_t)>& body) override {
    for (std::size_t i = 0; i < n; ++i) body(i);
  }
  std::uint64_t seed(std::string_view) const override { return 1; }
  std::vector<std::string> logged;
  bool cancel = false;
};

}  // namespace hansa::testing
