// What must hold for every compressor, whatever its parameters: for the author's own tests. No test framework: throws
// std::runtime_error with a sentence on the first thing that does not hold.
//
//   hansa::testing::check_compressor(Int8(Params{}), DType::f32);
#pragma once
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <hansa/compressor.hpp>

namespace hansa::testing {

inline void hold(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error("compressor suite: " + what);
}

inline at::ScalarType torch_type(DType type) {
  switch (type) {
    case DType::f16: return at::kHalf;
    case DType::bf16: return at::kBFloat16;
    case DType::f8e4m3: return at::kFloat8_e4m3fn;
    case DType::i8: return at::kChar;
    case DType::u8: return at::kByte;
    case DType::i32: return at::kInt;
    case DType::i64: return at::kLong;
    default: return at::kFloat;
  }
}

inline at::Tensor normal_tensor(DType type, const std::vector<std::int64_t>& shape, std::uint64_t seed,
                                double sigma = 1) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal(0, static_cast<float>(sigma));
  auto made = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  float* to = made.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < made.numel(); ++i) to[i] = normal(engine);
  if (type == DType::i8 || type == DType::i32 || type == DType::i64) made.mul_(20);
  if (type == DType::u8) made.abs_().mul_(20);
  return made.to(torch_type(type));
}

inline bool fits(const at::Tensor& tensor, const TensorSpec& spec) {
  if (tensor.scalar_type() != torch_type(spec.dtype) || tensor.dim() != static_cast<std::int64_t>(spec.shape.size()))
    return false;
  for (std::int64_t i = 0; i < tensor.dim(); ++i)
    if (spec.shape[static_cast<std::size_t>(i)] != -1 && spec.shape[static_cast<std::size_t>(i)] != tensor.size(i))
      return false;
  return tensor.is_contiguous();
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.nbytes() == 0 ||
          std::memcmp(a.contiguous().const_data_ptr(), b.contiguous().const_data_ptr(), a.nbytes()) == 0);
}

// One tensor there and back: plan told the truth, same seeds give the same bytes, the input is untouched.
inline Encoded check_one(const Compressor& compressor, const at::Tensor& in, const TensorSpec& spec) {
  const auto before = in.clone();
  const auto plan = compressor.plan(spec);
  const auto encoded = compressor.encode(in, {1, 2});
  const auto again = compressor.encode(in, {1, 2});
  hold(same_bits(in, before), "encode changed its input");
  hold(encoded.parts.size() == plan.parts.size(), "plan and encode disagree on the number of parts");
  std::uint64_t bytes = encoded.header.size();
  for (std::size_t i = 0; i < encoded.parts.size(); ++i) {
    hold(fits(encoded.parts[i], plan.parts[i]), "part " + std::to_string(i) + " is not as planned");
    hold(same_bits(encoded.parts[i], again.parts[i]), "the same seeds gave other bytes");
    bytes += encoded.parts[i].nbytes();
  }
  hold(encoded.header == again.header, "the same seeds gave another header");
  hold(bytes <= plan.most_bytes,
       "encode gave " + std::to_string(bytes) + " bytes, plan said at most " + std::to_string(plan.most_bytes));
  hold(plan.typical_bytes <= plan.most_bytes, "plan's typical size is above its largest");
  hold(fits(compressor.decode(encoded, spec, 1), spec), "decode did not give the shape and dtype asked for");
  return encoded;
}

// Damaged parts and headers: an exception, or a tensor of exactly the spec.
inline void check_total(const Compressor& compressor, const Encoded& good, const TensorSpec& spec, int rounds,
                        std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  for (int round = 0; round < rounds; ++round) {
    Encoded bad = good;
    for (auto& part : bad.parts) {
      part = part.clone();
      if (part.nbytes() == 0) continue;
      auto* bytes = static_cast<unsigned char*>(part.data_ptr());
      for (auto flips = engine() % 4; flips > 0; --flips)
        bytes[engine() % part.nbytes()] = static_cast<unsigned char>(engine());
      if (engine() % 4 == 0)
        part = part.flatten()
                   .slice(0, 0, static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(part.numel())))
                   .clone();
    }
    if (!bad.header.empty() && engine() % 2) bad.header[engine() % bad.header.size()] = static_cast<char>(engine());
    if (engine() % 16 == 0) bad.header.resize(engine() % 40);
    if (engine() % 32 == 0 && !bad.parts.empty()) bad.parts.pop_back();
    if (engine() % 64 == 0) bad.parts.push_back(normal_tensor(DType::f32, {3}, engine()));
    at::Tensor made;
    try {
      made = compressor.decode(bad, spec, 1);
    } catch (const std::exception&) {
      continue;
    }
    hold(fits(made, spec), "decode of damaged bytes gave a tensor of another shape or dtype");
  }
}

inline void check_compressor(const Compressor& compressor, DType type) {
  const std::vector<std::vector<std::int64_t>> shapes{{},     {0},   {1},       {7},         {3, 5},
                                                      {0, 4}, {257}, {64, 100}, {2, 3, 4, 5}};
  std::uint64_t seed = 1;
  for (const auto& shape : shapes) {
    const TensorSpec spec{"t", type, shape};
    const auto encoded = check_one(compressor, normal_tensor(type, shape, ++seed), spec);
    check_total(compressor, encoded, spec, 500, ++seed);
  }
  check_one(compressor, normal_tensor(type, {6, 9}, 99).t(), {"t", type, {9, 6}});
  check_one(compressor, normal_tensor(type, {40}, 98).zero_(), {"t", type, {40}});
}

}  // namespace hansa::testing
