#include "pipeline/upload.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "base/rng.hpp"
#include "tensor/bridge.hpp"

#include "owned_instance.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::pipeline;

namespace {

WorkOrder upload_order(double clip_bound = std::numeric_limits<double>::infinity()) {
  Layout layout;
  layout.tensors = {{"a", DType::f32, {3, 4}}, {"b", DType::f32, {13}}};
  layout.groups = {{"pair", {0, 1}, 0.5}};
  WorkOrder order;
  order.plan.round = 7;
  order.exchange.roles = {Role::Shared, Role::Shared};
  order.exchange.up.push_back({std::string(kAdapterChannel), layout});
  order.clip_bound = clip_bound;
  return order;
}
std::vector<at::Tensor> deltas_of(float value) {
  return {at::full({3, 4}, value), at::full({13}, value)};
}  // norm 5 · value

class Untouched final : public SecureRng {
 public:
  at::Tensor gaussian(at::IntArrayRef shape, double) override { return at::zeros(shape); }
};
class AddsOne final : public Stateless<Privacy> {  // local noise that a test can foretell
 public:
  double clip_bound(const RoundPlan&) const override { return 1; }
  void local(std::string_view, Index, at::Tensor& delta, SecureRng&) override { delta.add_(1); }
  std::optional<DpEvent> event(const RoundPlan&) const override { return {}; }
};
class Seeded final : public Stateless<Compressor> {  // adds the common seed's lowest bits, so that a wrong seed shows
 public:
  SizePlan plan(const TensorSpec& in) const override {
    const auto bytes = static_cast<std::uint64_t>(in.elements()) * 4;
    return {{{"", DType::f32, in.shape}}, bytes, bytes};
  }
  Encoded encode(const at::Tensor& in, Seeds seeds) const override { return {{in.add(shift(seeds.common))}, ""}; }
  at::Tensor decode(const Encoded& encoded, const TensorSpec&, std::uint64_t common) const override {
    return encoded.parts[0].sub(shift(common));
  }

 private:
  static double shift(std::uint64_t seed) { return static_cast<double>(1 + seed % 64); }
};

struct Uploader {
  CodecChain codecs;
  Instance<Privacy> privacy;
  Untouched noise;
  EncodedUpdate encode(const WorkOrder& order, std::vector<at::Tensor> deltas) {
    std::vector<std::vector<at::Tensor>> channels;
    channels.push_back(std::move(deltas));
    return encode_update(order, std::move(channels), {codecs, privacy, noise}, {common_seed(1, 7), own_seed(1, 7, 3)});
  }
};

std::string bytes_of_update(const EncodedUpdate& update) {
  std::string bytes;
  update.stream(
      [&](std::span<const std::byte> part) { bytes.append(reinterpret_cast<const char*>(part.data()), part.size()); });
  CHECK(bytes.size() == update.size());
  return bytes;
}

struct Coordinator {
  TemporaryDirectory folder;
  CodecChain codecs;
  Screened screen(const WorkOrder& order, std::string_view bytes) {
    const auto path = folder.path() / "upload";
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return screen_upload(path, order, codecs, common_seed(1, 7));
  }
};

std::string packet_of(const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                      std::string channel = std::string(kAdapterChannel)) {
  PacketContents contents;
  contents.channels.push_back({std::move(channel), {}});
  for (const auto& [name, tensor] : tensors) {
    contents.channels[0].entries.push_back({name, raw_code(dtype_of(tensor.scalar_type()), tensor.sizes().vec())});
  }
  const PacketPlan plan(contents);
  std::string bytes;
  PacketWriter writer(plan, [&](std::span<const std::byte> part) {
    bytes.append(reinterpret_cast<const char*>(part.data()), part.size());
  });
  for (const auto& [name, tensor] : tensors) writer.write(hansa::bytes_of(tensor));
  writer.finish();
  return bytes;
}

}  // namespace

TEST_CASE("an update within the bound is sent as it is, and screened with its own norm") {
  Uploader node;
  Coordinator coordinator;
  const auto order = upload_order(100);
  const auto update = node.encode(order, deltas_of(2));
  CHECK(update.norm_before_clip == Approx(10));
  CHECK(update.clip_factor == 1);
  const auto verdict = coordinator.screen(order, bytes_of_update(update));
  CHECK(verdict.accepted);
  CHECK(verdict.norm == Approx(10));
  CHECK(verdict.clip_factor == 1);
}

TEST_CASE("an update beyond the bound is scaled to it, all tensors by one factor") {
  Uploader node;
  Coordinator coordinator;
  const auto order = upload_order(2);
  const auto update = node.encode(order, deltas_of(2));
  CHECK(update.norm_before_clip == Approx(10));
  CHECK(update.clip_factor == Approx(0.2));
  const auto verdict = coordinator.screen(order, bytes_of_update(update));
  CHECK(verdict.norm == Approx(2));
  CHECK(verdict.clip_factor == Approx(1));
}

TEST_CASE("a node that does not clip is clipped by the coordinator") {
  Uploader node;
  Coordinator coordinator;
  const auto verdict = coordinator.screen(upload_order(2), bytes_of_update(node.encode(upload_order(), deltas_of(2))));
  CHECK(verdict.accepted);
  CHECK(verdict.norm == Approx(10));
  CHECK(verdict.clip_factor == Approx(0.2));
}

TEST_CASE("local noise comes after the clip") {
  Uploader node;
  Coordinator coordinator;
  node.privacy = owned<Privacy>(std::make_unique<AddsOne>());
  const auto verdict = coordinator.screen(upload_order(), bytes_of_update(node.encode(upload_order(5), deltas_of(2))));
  CHECK(verdict.norm == Approx(10));  // clipped to ones, then one more each
}

TEST_CASE("codecs get seeds that both sides know") {
  const Seeded seeded;
  Uploader node;
  Coordinator coordinator;
  node.codecs = coordinator.codecs = CodecChain({&seeded});
  CHECK(coordinator.screen(upload_order(), bytes_of_update(node.encode(upload_order(), deltas_of(1)))).norm ==
        Approx(5));
}

TEST_CASE("an update that is not finite is never encoded, and the tensor is named") {
  Uploader node;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    auto deltas = deltas_of(1);
    deltas[1].data_ptr<float>()[12] = bad;
    CHECK_THROWS_WITH(node.encode(upload_order(), deltas), Catch::Contains("training made b not finite"));
  }
  CHECK_THROWS_WITH(node.encode(upload_order(), {at::zeros({3, 4})}), Catch::Contains("does not have the layout"));
}

TEST_CASE("a NaN or an infinity that arrives is refused by name") {
  Coordinator coordinator;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto deltas = deltas_of(1);
    deltas[0].data_ptr<float>()[0] = bad;
    const auto verdict = coordinator.screen(upload_order(), packet_of({{"a", deltas[0]}, {"b", deltas[1]}}));
    CHECK_FALSE(verdict.accepted);
    CHECK_THAT(verdict.reason, Catch::Contains("a is not finite"));
  }
}

TEST_CASE("the largest finite values do not overflow the norm") {
  Coordinator coordinator;
  const auto most = std::numeric_limits<float>::max();
  const auto verdict =
      coordinator.screen(upload_order(1), packet_of({{"a", at::full({3, 4}, most)}, {"b", at::full({13}, most)}}));
  CHECK(verdict.accepted);
  CHECK(verdict.clip_factor * verdict.norm == Approx(1));
}

TEST_CASE("an upload of another layout is refused with the first difference") {
  Coordinator coordinator;
  const auto a = at::zeros({3, 4}), b = at::zeros({13});
  const auto reason = [&](const std::string& packet) {
    const auto verdict = coordinator.screen(upload_order(), packet);
    CHECK_FALSE(verdict.accepted);
    return verdict.reason;
  };
  CHECK_THAT(reason(packet_of({{"a", a}})), Catch::Contains("1 tensors where 2 belong") && Catch::Contains("'b'"));
  CHECK_THAT(reason(packet_of({{"a", a}, {"c", b}})), Catch::Contains("'c' where 'b' belongs"));
  CHECK_THAT(reason(packet_of({{"a", at::zeros({4, 3})}, {"b", b}})),
             Catch::Contains("shape [4, 3] where [3, 4] belongs"));
  CHECK_THAT(reason(packet_of({{"a", a.to(at::kHalf)}, {"b", b}})), Catch::Contains("f16 where f32 belongs"));
  CHECK_THAT(reason(packet_of({{"a", a}, {"b", b}}, "other")), Catch::Contains("no channel 'adapter'"));
  const Seeded seeded;
  coordinator.codecs = CodecChain({&seeded});
  CHECK_THAT(reason(packet_of({{"a", a}, {"b", b}})), Catch::Contains("codec stages"));
}

TEST_CASE("bytes that are no packet, or only a part of one, are a verdict and not an exception") {
  Uploader node;
  Coordinator coordinator;
  const auto whole = bytes_of_update(node.encode(upload_order(), deltas_of(1)));
  CHECK_FALSE(coordinator.screen(upload_order(), "").accepted);
  CHECK_FALSE(coordinator.screen(upload_order(), "hello").accepted);
  CHECK_THAT(coordinator.screen(upload_order(), whole.substr(0, whole.size() - 4)).reason,
             Catch::Contains("truncated"));
  for (std::size_t size = 0; size < whole.size(); size += 7)
    CHECK_FALSE(coordinator.screen(upload_order(), whole.substr(0, size)).accepted);
  CHECK_FALSE(coordinator.screen(upload_order(), whole + "more").accepted);
}

TEST_CASE("damaged packets never throw, and what is accepted has a finite norm") {
  Uploader node;
  const Seeded seeded;
  SplitMix64 rng(5);
  for (const bool coded : {false, true}) {
    Coordinator coordinator;
    if (coded) node.codecs = coordinator.codecs = CodecChain({&seeded});
    const auto whole = bytes_of_update(node.encode(upload_order(), deltas_of(1)));
    for (int trial = 0; trial < 400; ++trial) {
      auto bytes = whole;
      const auto flips = 1 + rng.below(4);
      for (std::uint64_t i = 0; i < flips; ++i) bytes[rng.below(bytes.size())] = static_cast<char>(rng.next());
      const auto verdict = coordinator.screen(upload_order(2), bytes);
      CHECK(verdict.accepted == verdict.reason.empty());
      if (verdict.accepted) CHECK(std::isfinite(verdict.norm));
    }
  }
}

TEST_CASE("a packet that cannot be read from the disk is an error, not a verdict") {
  CHECK_THROWS_AS(screen_upload("/nowhere/upload", upload_order(), {}, 0), Error);
}
