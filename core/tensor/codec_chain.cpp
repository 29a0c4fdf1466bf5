#include "tensor/codec_chain.hpp"

#include <algorithm>
#include <functional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.hpp"
#include "base/rng.hpp"
#include "tensor/bridge.hpp"

namespace hansa {
namespace {

constexpr std::uint64_t kMostCodedListBytes = 256u << 20;  // decoded size of a list whose length the sender decides
constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};      // raw lists: their bytes stand in the packet

using Stages = const std::vector<const Compressor*>&;

bool open_length(const TensorSpec& spec) {
  return std::find(spec.shape.begin(), spec.shape.end(), -1) != spec.shape.end();
}

std::uint64_t bytes_of_spec(const TensorSpec& spec) { return raw_code(spec.dtype, spec.shape).bytes; }

Code code_of(const at::Tensor& tensor) {
  Code code;
  code.dtype = dtype_of(tensor.scalar_type());
  code.shape = tensor.sizes().vec();
  return code;
}

// Parts and nested stages draw from seeds of their own: two stages that round at random must not share their draws.
Seeds seeds_below(Seeds seeds, std::size_t part) {
  return {derive_seed(seeds.common, "part", {part}), derive_seed(seeds.own, "part", {part})};
}

Code encode_from(Stages stages, std::size_t stage, const at::Tensor& tensor, Seeds seeds,
                 std::vector<at::Tensor>& leaves) {
  Code code = code_of(tensor);
  if (stage == stages.size()) {
    leaves.push_back(tensor.contiguous());
    code.bytes = leaves.back().nbytes();
    return code;
  }
  auto encoded = stages[stage]->encode(tensor, seeds);
  code.coded = true;
  code.header = std::move(encoded.header);
  for (std::size_t i = 0; i < encoded.parts.size(); ++i)
    code.parts.push_back(encode_from(stages, stage + 1, encoded.parts[i], seeds_below(seeds, i), leaves));
  return code;
}

// The part as sent must be the part as planned; an open length is bounded by the plan's most bytes.
void require_planned(const Code& part, const TensorSpec& planned, std::uint64_t most_bytes, std::size_t stage) {
  bool fits = part.dtype == planned.dtype && part.shape.size() == planned.shape.size();
  for (std::size_t i = 0; fits && i < part.shape.size(); ++i)
    fits = planned.shape[i] == -1 || part.shape[i] == planned.shape[i];
  if (!fits)
    throw Error(fmt::format("codec stage {}: a part is {} [{}] where {} [{}] belongs", stage, name_of(part.dtype),
                            fmt::join(part.shape, ", "), name_of(planned.dtype), fmt::join(planned.shape, ", ")));
  const auto bytes = raw_code(part.dtype, part.shape).bytes;
  if (open_length(planned) && bytes > most_bytes)
    throw Error(fmt::format("codec stage {}: a part of {} bytes, at most {} can be needed", stage, bytes, most_bytes));
}

void require_same(const at::Tensor& made, const TensorSpec& out, std::size_t stage) {
  if (made.scalar_type() != scalar_type_of(out.dtype) || made.sizes() != at::IntArrayRef(out.shape) ||
      !made.is_contiguous())
    throw Error(fmt::format("codec stage {}: decode did not give '{}' as {} [{}]", stage, out.name, name_of(out.dtype),
                            fmt::join(out.shape, ", ")));
}

using ReadLeaf = std::function<at::Tensor(const Code&)>;

at::Tensor decode_from(Stages stages, std::size_t stage, const ReadLeaf& read, const Code& code, const TensorSpec& out,
                       std::uint64_t common) {
  if (code.coded != (stage < stages.size()))
    throw Error(fmt::format("'{}' went through {} codec stages than the {} of this channel", out.name,
                            code.coded ? "more" : "fewer", stages.size()));
  if (!code.coded) return read(code);
  const auto plan = stages[stage]->plan(out);
  if (code.parts.size() != plan.parts.size())
    throw Error(fmt::format("codec stage {}: '{}' has {} parts where {} belong", stage, out.name, code.parts.size(),
                            plan.parts.size()));
  Encoded encoded;
  encoded.header = code.header;
  for (std::size_t i = 0; i < code.parts.size(); ++i) {
    const auto& part = code.parts[i];
    require_planned(part, plan.parts[i], plan.most_bytes, stage);
    const TensorSpec spec{out.name, part.dtype, part.shape};
    encoded.parts.push_back(decode_from(stages, stage + 1, read, part, spec, seeds_below({common, 0}, i).common));
  }
  auto made = stages[stage]->decode(encoded, out, common);
  require_same(made, out, stage);
  return made;
}

SizePlan plan_from(Stages stages, std::size_t stage, const TensorSpec& in);

TensorSpec closed(TensorSpec spec, std::uint64_t bytes) {  // an open length as long as `bytes` allow
  std::int64_t others = static_cast<std::int64_t>(size_of(spec.dtype));
  for (auto extent : spec.shape)
    if (extent > 0) others *= extent;
  for (auto& extent : spec.shape)
    if (extent == -1) extent = (static_cast<std::int64_t>(bytes) + others - 1) / others;
  return spec;
}

SizePlan plan_from(Stages stages, std::size_t stage, const TensorSpec& in) {
  if (stage == stages.size()) return {{in}, bytes_of_spec(in), bytes_of_spec(in)};
  auto here = stages[stage]->plan(in);
  if (stage + 1 == stages.size()) return here;
  SizePlan all;
  std::uint64_t typical_parts = 0, most_parts = 0;  // what this stage's parts take; the rest of its plan is its header
  for (const auto& part : here.parts) {
    const auto typical = closed(part, here.typical_bytes), most = closed(part, here.most_bytes);
    typical_parts += bytes_of_spec(typical);
    most_parts += bytes_of_spec(most);
    auto below = plan_from(stages, stage + 1, most);
    all.typical_bytes += plan_from(stages, stage + 1, typical).typical_bytes;
    all.most_bytes += below.most_bytes;
    for (auto& leaf : below.parts) all.parts.push_back(std::move(leaf));
  }
  if (here.typical_bytes > typical_parts) all.typical_bytes += here.typical_bytes - typical_parts;
  if (here.most_bytes > most_parts) all.most_bytes += here.most_bytes - most_parts;
  return all;
}

// Parts of open length share what those of fixed length leave of the stage's bytes; what nobody takes is the header.
Code planned_from(Stages stages, std::size_t stage, const TensorSpec& in, CodecChain::Size size) {
  Code code = raw_code(in.dtype, in.shape);
  if (stage == stages.size()) return code;
  const auto here = stages[stage]->plan(in);
  auto left = size == CodecChain::Size::Most ? here.most_bytes : here.typical_bytes;
  for (const auto& part : here.parts) {
    if (!open_length(part)) left -= std::min(left, bytes_of_spec(part));
  }
  const bool any_open = std::any_of(here.parts.begin(), here.parts.end(), open_length);
  code.coded = true;
  code.bytes = 0;
  if (!any_open) code.header.assign(left, ' ');
  for (const auto& part : here.parts) code.parts.push_back(planned_from(stages, stage + 1, closed(part, left), size));
  return code;
}

std::uint64_t header_bytes(const Code& code) {
  std::uint64_t bytes = code.header.size();
  for (const auto& part : code.parts) bytes += header_bytes(part);
  return bytes;
}

}  // namespace

std::uint64_t tensor_seed(std::uint64_t seed, std::string_view channel, Index index) {
  return derive_seed(seed, channel, {index});
}

std::uint64_t EncodedTensor::bytes() const {
  std::uint64_t sum = header_bytes(code);
  for (const auto& leaf : leaves) sum += leaf.nbytes();
  return sum;
}

EncodedTensor CodecChain::encode(const at::Tensor& tensor, Seeds seeds) const {
  EncodedTensor encoded;
  encoded.code = encode_from(stages_, 0, tensor, seeds, encoded.leaves);
  return encoded;
}

at::Tensor CodecChain::decode(const PacketView& packet, const Code& code, const TensorSpec& out,
                              std::uint64_t common) const {
  require_planned(code, out, code.coded ? kMostCodedListBytes : kNoLimit, 0);
  const auto read = [&](const Code& leaf) { return view_as_tensor(packet, leaf); };
  return decode_from(stages_, 0, read, code, {out.name, code.dtype, code.shape}, common);
}

at::Tensor CodecChain::decode(const EncodedTensor& encoded, const TensorSpec& out, std::uint64_t common) const {
  std::size_t next = 0;  // leaves stand in the order in which the tree is walked
  const auto read = [&](const Code&) { return encoded.leaves.at(next++); };
  return decode_from(stages_, 0, read, encoded.code, out, common);
}

SizePlan CodecChain::plan(const TensorSpec& tensor) const {
  return plan_from(stages_, 0, closed(tensor, 0));  // nothing is known about a list whose length the sender decides
}

Code CodecChain::planned(const TensorSpec& tensor, Size size) const {
  return planned_from(stages_, 0, closed(tensor, 0), size);
}

}  // namespace hansa
