#include "tensor/codec_chain.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include "base/error.hpp"
#include "base/rng.hpp"
#include "tensor/bridge.hpp"
#include "test.hpp"

using namespace hansa;

namespace {

// Two parts of different dtype: the even elements as they are, the odd ones as i32.
class Unzip final : public Stateless<Compressor> {
 public:
  SizePlan plan(const TensorSpec& in) const override {
    const auto n = in.elements();
    return {{{"", DType::f32, {(n + 1) / 2}}, {"", DType::i32, {n / 2}}}, std::uint64_t(4 * n), std::uint64_t(4 * n)};
  }
  Encoded encode(const at::Tensor& in, Seeds) const override {
    const auto flat = in.flatten();
    return {{flat.slice(0, 0, flat.numel(), 2), flat.slice(0, 1, flat.numel(), 2).to(at::kInt)}, ""};
  }
  at::Tensor decode(const Encoded& e, const TensorSpec& out, std::uint64_t) const override {
    auto flat = at::zeros({out.elements()});
    flat.slice(0, 0, flat.numel(), 2).copy_(e.parts.at(0));
    flat.slice(0, 1, flat.numel(), 2).copy_(e.parts.at(1));
    return flat.view(out.shape);
  }
};
// A part whose length depends on the values: bytes without the zeros at the end. The own seed goes into the header.
class Trim final : public Stateless<Compressor> {
 public:
  SizePlan plan(const TensorSpec& in) const override {
    const auto bytes = static_cast<std::uint64_t>(in.elements()) * size_of(in.dtype);
    return {{{"", DType::u8, {-1}}}, bytes / 2 + 16, bytes + 16};
  }
  Encoded encode(const at::Tensor& in, Seeds seeds) const override {
    const auto whole = in.contiguous();
    auto bytes = bytes_of(whole);
    while (!bytes.empty() && bytes.back() == std::byte{0}) bytes = bytes.first(bytes.size() - 1);
    auto part = aligned_empty(DType::u8, {static_cast<std::int64_t>(bytes.size())});
    std::copy(bytes.begin(), bytes.end(), static_cast<std::byte*>(part.data_ptr()));
    return {{part}, std::to_string(seeds.own) + "/" + std::to_string(seeds.common)};
  }
  at::Tensor decode(const Encoded& e, const TensorSpec& out, std::uint64_t common) const override {
    if (!e.header.ends_with("/" + std::to_string(common))) throw Error("another common seed");
    auto made = at::zeros(out.shape, scalar_type_of(out.dtype));
    const auto bytes = bytes_of(e.parts.at(0));
    if (bytes.size() > made.nbytes()) throw Error("too many bytes");
    std::copy(bytes.begin(), bytes.end(), static_cast<std::byte*>(made.data_ptr()));
    return made;
  }
};

// Says what it was asked to guard, and wraps what is thrown.
class Recording final : public CodecGuard {
 public:
  void call(const CallPlace& place, const std::function<void()>& stage) const override {
    calls.push_back(std::string(place.doing) + " " + std::string(place.tensor) + " " + std::to_string(*place.round));
    try {
      stage();
    } catch (const std::exception& e) {
      throw Error("guarded " + std::string(place.doing) + ": " + e.what());
    }
  }
  mutable std::vector<std::string> calls;
};
// Gives another shape than it plans, on the way up or on the way down.
class Crooked final : public Stateless<Compressor> {
 public:
  explicit Crooked(bool up) : up_(up) {}
  SizePlan plan(const TensorSpec& in) const override { return {{in}, 0, 0}; }
  Encoded encode(const at::Tensor& in, Seeds) const override { return {{up_ ? at::zeros({7}) : in}, {}}; }
  at::Tensor decode(const Encoded&, const TensorSpec&, std::uint64_t) const override { return at::zeros({1, 2, 3}); }

 private:
  bool up_;
};

struct Packed {
  AlignedBytes memory;
  Packed(const EncodedTensor& tensor, std::string name = "t") : memory(0) {
    PacketPlan plan({{}, {{"c", {{std::move(name), tensor.code}}}}});
    memory = AlignedBytes(plan.total_bytes());
    PacketWriter writer(plan, memory.sink());
    for (const auto& leaf : tensor.leaves) writer.write(bytes_of(leaf));
    writer.finish();
  }
};

const Code& only(const PacketView& view) { return view.contents().channels.at(0).entries.at(0).code; }

const Unzip unzip;
const Trim trim;

}  // namespace

TEST_CASE("an empty chain shares the tensor and gives a view of the packet") {
  const auto tensor = at::arange(12, at::kFloat).view({3, 4});
  const CodecChain chain;
  const auto encoded = chain.encode(tensor, {});
  CHECK(encoded.leaves.at(0).data_ptr() == tensor.data_ptr());
  const Packed packed(encoded);
  const PacketView view(packed.memory.bytes());
  const auto back = chain.decode(view, only(view), spec_of("t", tensor), 0);
  CHECK(at::equal(back, tensor));
  CHECK(back.const_data_ptr() == view.bytes(only(view)).data());
  CHECK(encoded.bytes() == 48);
  CHECK(chain.plan(spec_of("t", tensor)).most_bytes == 48);
}

TEST_CASE("every part goes through the later stages and comes back") {
  const CodecChain chain({&unzip, &trim, &trim});
  for (auto shape : {std::vector<std::int64_t>{3, 5}, {}, {0}, {1}}) {
    const auto tensor = at::arange(TensorSpec{"", DType::f32, shape}.elements(), at::kFloat).view(shape);
    const auto encoded = chain.encode(tensor, {5, 6});
    CHECK(encoded.leaves.size() == 2);
    const Packed packed(encoded);
    const PacketView view(packed.memory.bytes());
    CHECK(at::equal(chain.decode(view, only(view), spec_of("t", tensor), 5), tensor));
    CHECK_THROWS(chain.decode(view, only(view), spec_of("t", tensor), 4));
    CHECK(encoded.bytes() <=
          chain.plan(spec_of("t", tensor)).most_bytes + 200);  // this Trim writes seeds of any length
  }
}

TEST_CASE("non-contiguous tensors are sent as if they were contiguous") {
  const auto tensor = at::arange(12, at::kFloat).view({3, 4}).t();
  for (const auto& chain : {CodecChain(), CodecChain({&trim})}) {
    const Packed packed(chain.encode(tensor, {}));
    const PacketView view(packed.memory.bytes());
    CHECK(at::equal(chain.decode(view, only(view), spec_of("t", tensor), 0), tensor));
  }
}

TEST_CASE("two stages of one tensor never share their random draws") {
  const auto encoded = CodecChain({&unzip, &trim}).encode(at::arange(8, at::kFloat), {1, 2});
  CHECK(encoded.code.parts.at(0).header != encoded.code.parts.at(1).header);
  CHECK(tensor_seed(1, "a", 0) != tensor_seed(1, "a", 1));
  CHECK(tensor_seed(1, "a", 0) != tensor_seed(1, "b", 0));
  CHECK(tensor_seed(1, "a", 0) == tensor_seed(1, "a", 0));
}

TEST_CASE("decode refuses another depth, dtype, shape and part") {
  const auto tensor = at::arange(6, at::kFloat);
  const auto spec = spec_of("t", tensor);
  const Packed packed(CodecChain({&trim}).encode(tensor, {}));
  const PacketView view(packed.memory.bytes());
  CHECK_THROWS_WITH(CodecChain().decode(view, only(view), spec, 0), Catch::Contains("more codec stages than the 0"));
  CHECK_THROWS_WITH(CodecChain({&trim, &trim}).decode(view, only(view), spec, 0),
                    Catch::Contains("fewer codec stages than the 2"));
  CHECK_THROWS_WITH(CodecChain({&unzip}).decode(view, only(view), spec, 0), Catch::Contains("1 parts where 2 belong"));
  CHECK_THROWS_WITH(CodecChain({&trim}).decode(view, only(view), {"t", DType::f32, {7}}, 0),
                    Catch::Contains("[6] where f32 [7]"));
}

TEST_CASE("an inner claim larger than its stage can need is refused before memory is taken") {
  auto encoded = CodecChain({&trim, &trim}).encode(at::arange(6, at::kFloat), {});
  encoded.code.parts.at(0).shape = {std::int64_t(1) << 40};
  const Packed packed(encoded);
  const PacketView view(packed.memory.bytes());
  CHECK_THROWS_WITH(CodecChain({&trim, &trim}).decode(view, only(view), {"t", DType::f32, {6}}, 0),
                    Catch::Contains("at most 40"));
  auto list = CodecChain({&trim}).encode(at::arange(6, at::kFloat), {});
  list.code.shape = {std::int64_t(1) << 40};
  const Packed listed(list);
  const PacketView list_view(listed.memory.bytes());
  CHECK_THROWS_WITH(CodecChain({&trim}).decode(list_view, only(list_view), {"t", DType::f32, {-1}}, 0),
                    Catch::Contains("at most"));
}

TEST_CASE("a list of open length passes through a chain") {
  const auto tensor = at::arange(6, at::kFloat);
  const Packed packed(CodecChain({&trim}).encode(tensor, {}));
  const PacketView view(packed.memory.bytes());
  CHECK(at::equal(CodecChain({&trim}).decode(view, only(view), {"t", DType::f32, {-1}}, 0), tensor));
}

TEST_CASE("the bridge knows every dtype and refuses what cannot travel") {
  for (int i = 0; i <= 7; ++i) CHECK(dtype_of(scalar_type_of(static_cast<DType>(i))) == static_cast<DType>(i));
  CHECK_THROWS_WITH(dtype_of(at::kDouble), Catch::Contains("cannot travel"));
  AlignedBytes memory(65);
  memory.append(std::vector<std::byte>(65));
  CHECK(view_as_tensor(memory.bytes().first(64), DType::f32, {4, 4}).numel() == 16);
  CHECK_THROWS_WITH(view_as_tensor(memory.bytes().subspan(1), DType::f32, {4, 4}), Catch::Contains("aligned"));
  CHECK_THROWS_WITH(view_as_tensor(memory.bytes(), DType::f32, {4, 4}), Catch::Contains("64 bytes laid over 65"));
  CHECK(view_as_tensor(memory.bytes().subspan(1, 0), DType::f32, {0, 4}).numel() == 0);
}

TEST_CASE("a planned code has the form and at least the size of what encode gives") {
  const Unzip unzip;
  const Trim trim;
  const CodecChain chain({&unzip, &trim});
  const TensorSpec spec{"t", DType::f32, {5, 7}};
  const auto total = [](const Code& code) { return PacketPlan({{}, {{"c", {{"t", code}}}}}).total_bytes(); };
  const auto most = chain.planned(spec, CodecChain::Size::Most),
             typical = chain.planned(spec, CodecChain::Size::Typical);
  REQUIRE(most.parts.size() == 2);
  CHECK(most.parts[1].dtype == DType::i32);
  CHECK(most.parts[0].parts.at(0).shape == std::vector<std::int64_t>{18 * 4 + 16});
  CHECK(typical.parts[0].parts.at(0).shape == std::vector<std::int64_t>{18 * 2 + 16});
  CHECK(total(typical) < total(most));
  const CodecChain halves({&unzip});
  CHECK(total(halves.encode(at::arange(35).view({5, 7}).to(at::kFloat), {1, 2}).code) ==
        total(halves.planned(spec, CodecChain::Size::Most)));
  CHECK(total(CodecChain().planned(spec, CodecChain::Size::Most)) == total(raw_code(spec.dtype, spec.shape)));
}

TEST_CASE("every call of a stage goes through its guard, with the place that the caller knows") {
  const Unzip unzip;
  const Trim trim;
  const Recording first, second;
  const CodecChain chain({&unzip, &trim}, {&first, &second});
  const CallPlace where{.round = 4, .node = 9, .tensor = "t"};
  const auto encoded = chain.encode(at::arange(8, at::kFloat), {1, 2}, where);
  CHECK(first.calls == std::vector<std::string>{"encode t 4"});
  CHECK(second.calls == std::vector<std::string>{"encode t 4", "encode t 4"});  // one for each part
  first.calls.clear();
  CHECK(at::equal(chain.decode(encoded, {"t", DType::f32, {8}}, 1, where), at::arange(8, at::kFloat)));
  CHECK(first.calls == std::vector<std::string>{"decode t 4", "decode t 4"});  // the check of the parts, and the decode
  second.calls.clear();
  chain.plan({"t", DType::f32, {8}}, where);
  CHECK(second.calls.front() == "plan t 4");
}

TEST_CASE("a stage that does not give what it plans is found where it runs, under its guard") {
  const Crooked up(true), down(false);
  const Recording guard;
  const CallPlace where{.round = 1, .tensor = "t"};
  CHECK_THROWS_WITH(CodecChain({&up}, {&guard}).encode(at::zeros({2}), {}, where),
                    "guarded encode: a part is f32 [7] where f32 [2] belongs");
  const CodecChain chain({&down}, {&guard});
  CHECK_THROWS_WITH(chain.decode(chain.encode(at::zeros({2}), {}, where), {"t", DType::f32, {2}}, 0, where),
                    "guarded decode: decode did not give 't' as f32 [2]");
}
