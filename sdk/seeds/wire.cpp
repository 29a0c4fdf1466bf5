#include "seeds/wire.hpp"

#include <cmath>
#include <string>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include "base/error.hpp"

namespace hansa::seeds {
namespace {

c10::Half half(double value, std::uint64_t seed, const char* what) {
  const c10::Half made(static_cast<float>(value));
  if (!std::isfinite(static_cast<float>(made)))
    throw Error(
        fmt::format("the {} of seed {} is {:g}, and half precision ends at 65504: training has diverged or the loss "
                    "is very steep; lower the learning rate",
                    what, seed, value));
  return made;
}

void require(bool holds, const char* sentence) {
  if (!holds) throw Error(sentence);
}

bool flat(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.defined() && tensor.dim() == 1 && tensor.scalar_type() == type;
}

}  // namespace

Channel up_channel() {
  return {.name = std::string(kUpChannel),
          .layout = {{{"seeds", DType::u8, {-1}}, {"scalars", DType::f16, {-1}}}, {{"", {0}}, {"", {1}}}},
          .carry = Carry::Collect};
}

std::vector<at::Tensor> encode(const Scalars& scalars) {
  std::vector<std::uint8_t> bytes;
  auto values = at::empty({static_cast<std::int64_t>(scalars.size())}, at::TensorOptions().dtype(at::kHalf));
  auto* value = values.mutable_data_ptr<c10::Half>();
  std::uint32_t next = 0;  // the least that the next seed can be
  for (const auto& [seed, scalar] : scalars) {
    std::uint32_t gap = seed - next;
    for (; gap >= 128; gap >>= 7) bytes.push_back(static_cast<std::uint8_t>(gap | 128));
    bytes.push_back(static_cast<std::uint8_t>(gap));
    *value++ = half(scalar, seed, "scalar");
    next = seed + 1;
  }
  auto seeds = at::empty({static_cast<std::int64_t>(bytes.size())}, at::TensorOptions().dtype(at::kByte));
  std::copy(bytes.begin(), bytes.end(), seeds.mutable_data_ptr<std::uint8_t>());
  return {seeds, values};
}

std::vector<std::pair<std::uint32_t, float>> decode(const at::Tensor& seeds, const at::Tensor& scalars,
                                                    std::int64_t candidates) {
  require(flat(seeds, at::kByte) && flat(scalars, at::kHalf), "seeds come as bytes and scalars in half precision");
  require(scalars.numel() <= candidates, "there are more scalars than candidate seeds");
  const auto bytes = seeds.contiguous(), values = scalars.contiguous();
  const auto* byte = bytes.const_data_ptr<std::uint8_t>();
  const auto* const end = byte + bytes.numel();
  std::vector<std::pair<std::uint32_t, float>> all;
  std::uint64_t next = 0;
  for (std::int64_t i = 0; i < values.numel(); ++i) {
    std::uint64_t gap = 0;
    for (int shift = 0;; shift += 7) {
      require(byte != end && shift < 28, "the list of seeds is cut off or malformed");
      gap |= static_cast<std::uint64_t>(*byte & 127) << shift;
      if (*byte++ < 128) break;
    }
    const auto seed = next + gap;
    if (seed >= static_cast<std::uint64_t>(candidates))
      throw Error(fmt::format("seed {} is not among the {} candidates; have node and coordinator the same `seeds`?",
                              seed, candidates));
    const auto scalar = static_cast<float>(values.const_data_ptr<c10::Half>()[i]);
    if (!std::isfinite(scalar)) throw Error(fmt::format("the scalar of seed {} is not a number", seed));
    all.emplace_back(static_cast<std::uint32_t>(seed), scalar);
    next = seed + 1;
  }
  require(byte == end, "the list of seeds is longer than that of the scalars");
  return all;
}

Channel down_channel(std::int64_t candidates) {
  return {.name = std::string(kDownChannel),
          .layout = {{{std::string(kDownChannel), DType::f16, {candidates}}}, {{"", {0}}}},
          .carry = Carry::Collect,
          .keep = Keep::Log,
          .for_trainer = true};
}

at::Tensor zero_accumulators(std::int64_t candidates) {
  return at::zeros({candidates}, at::TensorOptions().dtype(at::kHalf));
}

void require_entry(const at::Tensor& entry, std::int64_t candidates) {
  require(flat(entry, at::kHalf), "accumulators come as one list in half precision");
  if (entry.numel() != candidates)
    throw Error(
        fmt::format("there are {} accumulators for {} candidate seeds; trainer and aggregator need the same `seeds`",
                    entry.numel(), candidates));
  const auto held = entry.contiguous();
  for (std::int64_t i = 0; i < candidates; ++i)
    if (!std::isfinite(static_cast<float>(held.const_data_ptr<c10::Half>()[i])))
      throw Error(fmt::format("the accumulator of seed {} is not a number", i));
}

at::Tensor sum(const at::Tensor& accumulators, const at::Tensor& entry) {
  require_entry(accumulators, accumulators.numel());
  require_entry(entry, accumulators.numel());
  const auto before = accumulators.contiguous(), by = entry.contiguous();
  auto made = at::empty({before.numel()}, at::TensorOptions().dtype(at::kHalf));
  for (std::int64_t i = 0; i < made.numel(); ++i) {
    // Two halves add up in single precision first: fixed operations, so fixed bits.
    const float total = static_cast<float>(before.const_data_ptr<c10::Half>()[i]) +
                        static_cast<float>(by.const_data_ptr<c10::Half>()[i]);
    made.mutable_data_ptr<c10::Half>()[i] = half(total, static_cast<std::uint64_t>(i), "accumulator");
  }
  return made;
}

at::Tensor to_half(const std::vector<double>& entry) {
  auto made = at::empty({static_cast<std::int64_t>(entry.size())}, at::TensorOptions().dtype(at::kHalf));
  for (std::size_t i = 0; i < entry.size(); ++i)
    made.mutable_data_ptr<c10::Half>()[i] = half(entry[i], i, "accumulator");
  return made;
}

}  // namespace hansa::seeds
