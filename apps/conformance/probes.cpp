#include "conformance/probes.hpp"

#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <limits>
#include <random>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <c10/core/CPUAllocator.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "conformance/check.hpp"

extern "C" std::size_t __sanitizer_get_current_allocated_bytes() __attribute__((weak));

namespace hansa::conformance {

std::uint64_t heap_in_use() {
  if (__sanitizer_get_current_allocated_bytes) return __sanitizer_get_current_allocated_bytes();
  const auto now = mallinfo2();
  return now.uordblks + now.hblkhd;
}

std::size_t threads() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<std::size_t>(std::distance(begin(tasks), end(tasks)));
}

// ---- tensor memory -----------------------------------------------------------------------------------------------------

struct TensorMemory::Counter : at::Allocator {
  struct Counts {
    std::uint64_t alive = 0, peak = 0;
  };
  struct Block {  // outlives this object where a tensor does
    at::DataPtr inner;
    std::uint64_t bytes;
    std::shared_ptr<Counts> counts;
  };
  static void give_back(void* context) {
    auto* block = static_cast<Block*>(context);
    block->counts->alive -= block->bytes;
    delete block;
  }
  at::DataPtr allocate(std::size_t bytes) override {
    auto inner = before->allocate(bytes);
    void* data = inner.get();
    const auto device = inner.device();
    counts->alive += bytes;
    counts->peak = std::max(counts->peak, counts->alive);
    return {data, new Block{std::move(inner), bytes, counts}, &give_back, device};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }

  at::Allocator* before = c10::GetCPUAllocator();
  std::shared_ptr<Counts> counts = std::make_shared<Counts>();
};

TensorMemory::TensorMemory() : counter_(std::make_unique<Counter>()) { c10::SetCPUAllocator(counter_.get(), 100); }
TensorMemory::~TensorMemory() { c10::SetCPUAllocator(counter_->before, 100); }
std::uint64_t TensorMemory::alive() const { return counter_->counts->alive; }
std::uint64_t TensorMemory::peak() const { return counter_->counts->peak; }

// ---- generators --------------------------------------------------------------------------------------------------------

GlobalGenerators::GlobalGenerators() : GlobalGenerators(1) {}
GlobalGenerators::GlobalGenerators(unsigned seed) : seed_(seed) {
  auto generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(seed);
  before_ = generator.get_state();
  srand(seed);
}
std::string GlobalGenerators::touched() const {
  if (!same_bits(at::detail::getDefaultCPUGenerator().get_state(), before_)) return "LibTorch's global generator";
  const int next = rand();
  srand(seed_);
  return next == rand() ? "" : "rand()";
}

// ---- lent tensors ------------------------------------------------------------------------------------------------------

at::Tensor Lent::add(const at::Tensor& values) {
  auto memory = std::make_shared<at::Tensor>(values.clone(at::MemoryFormat::Contiguous));
  auto copy = at::from_blob(
      memory->mutable_data_ptr(), memory->sizes(), [memory](void*) mutable { memory.reset(); }, memory->options());
  lent_.push_back({copy, values.clone(at::MemoryFormat::Contiguous), memory});
  return copy;
}
void Lent::check(const std::string& whose) {
  for (auto& one : lent_) {
    hold(same_bits(one.copy, one.before), whose + " was written to");
    one.copy.reset();
    hold(one.memory.expired(), whose + " is still held after the call that lent it");
  }
  lent_.clear();
}

// ---- saved state -------------------------------------------------------------------------------------------------------

namespace {
template <class Pairs>
auto found(Pairs& pairs, std::string_view key) {
  return std::find_if(pairs.begin(), pairs.end(), [key](const auto& pair) { return pair.first == key; });
}
}  // namespace

void SavedState::put(std::string_view key, const at::Tensor& value) {
  tensors_.emplace_back(key, value.clone(at::MemoryFormat::Contiguous));
}
void SavedState::put(std::string_view key, std::string_view bytes) { texts_.emplace_back(key, bytes); }
bool SavedState::has(std::string_view key) const {
  return found(tensors_, key) != tensors_.end() || found(texts_, key) != texts_.end();
}
at::Tensor SavedState::tensor(std::string_view key) const {
  const auto place = found(tensors_, key);
  if (place == tensors_.end()) throw std::runtime_error(fmt::format("the state holds no tensor '{}'", key));
  return place->second;
}
std::string SavedState::bytes(std::string_view key) const {
  const auto place = found(texts_, key);
  if (place == texts_.end()) throw std::runtime_error(fmt::format("the state holds no text '{}'", key));
  return place->second;
}

// ---- tensors -----------------------------------------------------------------------------------------------------------

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, std::uint64_t seed, double sigma) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal(0, sigma);
  auto made = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  auto* to = made.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < made.numel(); ++i) to[i] = static_cast<float>(normal(engine));
  return made;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.nbytes() == 0 ||
          std::memcmp(a.contiguous().const_data_ptr(), b.contiguous().const_data_ptr(), a.nbytes()) == 0);
}

std::string difference(const NamedTensors& a, const NamedTensors& b) {
  if (a.size() != b.size()) return fmt::format("{} results against {}", a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].first != b[i].first) return fmt::format("'{}' against '{}'", a[i].first, b[i].first);
    if (same_bits(a[i].second, b[i].second)) continue;
    if (a[i].second.sizes() != b[i].second.sizes()) return fmt::format("'{}' has another shape", a[i].first);
    return fmt::format("'{}' differs by {:.3g} of its largest element", a[i].first,
                       relative_error(a[i].second, b[i].second));
  }
  return "";
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return std::numeric_limits<double>::infinity();
  if (a.numel() == 0) return 0;
  const auto x = a.to(at::kDouble), y = b.to(at::kDouble);
  const double largest = y.abs().max().item<double>();
  return x.sub(y).abs().max().item<double>() / (largest > 0 ? largest : 1);
}

at::Tensor number(double value) { return at::full({}, value, at::TensorOptions().dtype(at::kDouble)); }

std::string shapes_text(const std::vector<std::vector<std::int64_t>>& shapes) {
  std::vector<std::string> texts;
  for (const auto& shape : shapes) texts.push_back(fmt::format("[{}]", fmt::join(shape, ", ")));
  return fmt::format("{}", fmt::join(texts, ", "));
}

}  // namespace hansa::conformance
