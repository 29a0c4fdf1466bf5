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

// One tensor's way through the stages.
struct Walk {
  const std::vector<const Compressor*>& stages;
  const std::vector<const CodecGuard*>& guards;
  CallPlace where;

  bool ends(std::size_t stage) const { return stage == stages.size(); }
  template <class Call>
  void call(std::size_t stage, std::string_view doing, const Call& use) const {
    if (guards.empty()) return use(*stages[stage]);
    auto place = where;
    place.doing = doing;
    guards[stage]->call(place, [&] { use(*stages[stage]); });
  }
};

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

// The part as it is must be the part as planned; an open length is bounded by the plan's most bytes.
void require_planned(const Code& part, const TensorSpec& planned, std::uint64_t most_bytes) {
  bool fits = part.dtype == planned.dtype && part.shape.size() == planned.shape.size();
  for (std::size_t i = 0; fits && i < part.shape.size(); ++i)
    fits = planned.shape[i] == -1 || part.shape[i] == planned.shape[i];
  if (!fits)
    throw Error(fmt::format("a part is {} [{}] where {} [{}] belongs", name_of(part.dtype), fmt::join(part.shape, ", "),
                            name_of(planned.dtype), fmt::join(planned.shape, ", ")));
  const auto bytes = raw_code(part.dtype, part.shape).bytes;
  if (open_length(planned) && bytes > most_bytes)
    throw Error(fmt::format("a part of {} bytes, at most {} can be needed", bytes, most_bytes));
}

void require_planned(const std::vector<Code>& parts, const SizePlan& plan) {
  if (parts.size() != plan.parts.size())
    throw Error(fmt::format("there are {} parts where {} belong", parts.size(), plan.parts.size()));
  for (std::size_t i = 0; i < parts.size(); ++i) require_planned(parts[i], plan.parts[i], plan.most_bytes);
}

void require_same(const at::Tensor& made, const TensorSpec& out) {
  if (!made.defined() || made.scalar_type() != scalar_type_of(out.dtype) ||
      made.sizes() != at::IntArrayRef(out.shape) || !made.is_contiguous())
    throw Error(
        fmt::format("decode did not give '{}' as {} [{}]", out.name, name_of(out.dtype), fmt::join(out.shape, ", ")));
}

Code encode_from(const Walk& walk, std::size_t stage, const at::Tensor& tensor, Seeds seeds,
                 std::vector<at::Tensor>& leaves) {
  Code code = code_of(tensor);
  if (walk.ends(stage)) {
    leaves.push_back(tensor.contiguous());
    code.bytes = leaves.back().nbytes();
    return code;
  }
  Encoded encoded;
  walk.call(stage, "encode", [&](const Compressor& codec) {
    encoded = codec.encode(tensor, seeds);
    std::vector<Code> parts;
    for (const auto& part : encoded.parts) {
      if (!part.defined()) throw Error("a part is no tensor");
      parts.push_back(code_of(part));
    }
    require_planned(parts, codec.plan({std::string(walk.where.tensor), code.dtype, code.shape}));
  });
  code.coded = true;
  code.header = std::move(encoded.header);
  for (std::size_t i = 0; i < encoded.parts.size(); ++i)
    code.parts.push_back(encode_from(walk, stage + 1, encoded.parts[i], seeds_below(seeds, i), leaves));
  return code;
}

using ReadLeaf = std::function<at::Tensor(const Code&)>;

at::Tensor decode_from(const Walk& walk, std::size_t stage, const ReadLeaf& read, const Code& code,
                       const TensorSpec& out, std::uint64_t common) {
  if (code.coded != !walk.ends(stage))
    throw Error(fmt::format("'{}' went through {} codec stages than the {} of this channel", out.name,
                            code.coded ? "more" : "fewer", walk.stages.size()));
  if (!code.coded) return read(code);
  walk.call(stage, "decode", [&](const Compressor& codec) { require_planned(code.parts, codec.plan(out)); });
  Encoded encoded;
  encoded.header = code.header;
  for (std::size_t i = 0; i < code.parts.size(); ++i) {
    const auto& part = code.parts[i];
    const TensorSpec spec{out.name, part.dtype, part.shape};
    encoded.parts.push_back(decode_from(walk, stage + 1, read, part, spec, seeds_below({common, 0}, i).common));
  }
  at::Tensor made;
  walk.call(stage, "decode", [&](const Compressor& codec) {
    made = codec.decode(encoded, out, common);
    require_same(made, out);
  });
  return made;
}

TensorSpec closed(TensorSpec spec, std::uint64_t bytes) {  // an open length as long as `bytes` allow
  std::int64_t others = static_cast<std::int64_t>(size_of(spec.dtype));
  for (auto extent : spec.shape)
    if (extent > 0) others *= extent;
  for (auto& extent : spec.shape)
    if (extent == -1) extent = (static_cast<std::int64_t>(bytes) + others - 1) / others;
  return spec;
}

SizePlan plan_from(const Walk& walk, std::size_t stage, const TensorSpec& in) {
  if (walk.ends(stage)) return {{in}, bytes_of_spec(in), bytes_of_spec(in)};
  SizePlan here;
  walk.call(stage, "plan", [&](const Compressor& codec) { here = codec.plan(in); });
  if (walk.ends(stage + 1)) return here;
  SizePlan all;
  std::uint64_t typical_parts = 0, most_parts = 0;  // what this stage's parts take; the rest of its plan is its header
  for (const auto& part : here.parts) {
    const auto typical = closed(part, here.typical_bytes), most = closed(part, here.most_bytes);
    typical_parts += bytes_of_spec(typical);
    most_parts += bytes_of_spec(most);
    auto below = plan_from(walk, stage + 1, most);
    all.typical_bytes += plan_from(walk, stage + 1, typical).typical_bytes;
    all.most_bytes += below.most_bytes;
    for (auto& leaf : below.parts) all.parts.push_back(std::move(leaf));
  }
  if (here.typical_bytes > typical_parts) all.typical_bytes += here.typical_bytes - typical_parts;
  if (here.most_bytes > most_parts) all.most_bytes += here.most_bytes - most_parts;
  return all;
}

// Parts of open length share what those of fixed length leave of the stage's bytes; what nobody takes is the header.
Code planned_from(const Walk& walk, std::size_t stage, const TensorSpec& in, CodecChain::Size size) {
  Code code = raw_code(in.dtype, in.shape);
  if (walk.ends(stage)) return code;
  SizePlan here;
  walk.call(stage, "plan", [&](const Compressor& codec) { here = codec.plan(in); });
  auto left = size == CodecChain::Size::Most ? here.most_bytes : here.typical_bytes;
  for (const auto& part : here.parts) {
    if (!open_length(part)) left -= std::min(left, bytes_of_spec(part));
  }
  const bool any_open = std::any_of(here.parts.begin(), here.parts.end(), open_length);
  code.coded = true;
  code.bytes = 0;
  if (!any_open) code.header.assign(left, ' ');
  for (const auto& part : here.parts) code.parts.push_back(planned_from(walk, stage + 1, closed(part, left), size));
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

EncodedTensor CodecChain::encode(const at::Tensor& tensor, Seeds seeds, const CallPlace& where) const {
  EncodedTensor encoded;
  encoded.code = encode_from({stages_, guards_, where}, 0, tensor, seeds, encoded.leaves);
  return encoded;
}

at::Tensor CodecChain::decode(const PacketView& packet, const Code& code, const TensorSpec& out, std::uint64_t common,
                              const CallPlace& where) const {
  require_planned(code, out, code.coded ? kMostCodedListBytes : kNoLimit);
  const auto read = [&](const Code& leaf) { return view_as_tensor(packet, leaf); };
  const Walk walk{stages_, guards_, {{}, where.round, where.node, out.name}};
  return decode_from(walk, 0, read, code, {out.name, code.dtype, code.shape}, common);
}

at::Tensor CodecChain::decode(const EncodedTensor& encoded, const TensorSpec& out, std::uint64_t common,
                              const CallPlace& where) const {
  std::size_t next = 0;  // leaves stand in the order in which the tree is walked
  const auto read = [&](const Code&) { return encoded.leaves.at(next++); };
  const Walk walk{stages_, guards_, {{}, where.round, where.node, out.name}};
  return decode_from(walk, 0, read, encoded.code, out, common);
}

SizePlan CodecChain::plan(const TensorSpec& tensor, const CallPlace& where) const {
  // Nothing is known about a list whose length the sender decides.
  return plan_from({stages_, guards_, {{}, where.round, where.node, tensor.name}}, 0, closed(tensor, 0));
}

Code CodecChain::planned(const TensorSpec& tensor, Size size, const CallPlace& where) const {
  return planned_from({stages_, guards_, {{}, where.round, where.node, tensor.name}}, 0, closed(tensor, 0), size);
}

}  // namespace hansa
