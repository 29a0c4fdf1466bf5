// A small model on disk, uploads for it, components that do something simple, and a reference of the fold in plain loops.
// For the tests of fold/.
#pragma once
#include <cstring>
#include <fstream>
#include <map>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include "base/digest.hpp"
#include "base/rng.hpp"
#include "fold/fold.hpp"
#include "tensor/bridge.hpp"

#include "owned_instance.hpp"
#include "test.hpp"

namespace hansa::fold {

using Values = std::vector<std::vector<float>>;  // per tensor

// An empty tensor, a scalar, one that LibTorch would cut up between threads; groups out of the layout's order, one of two.
inline Layout test_layout() {
  Layout layout;
  layout.tensors = {{"a", DType::f32, {3, 5}},
                    {"b", DType::f32, {17}},
                    {"c", DType::f32, {0, 4}},
                    {"d", DType::f32, {}},
                    {"e", DType::f32, {401, 503}}};
  layout.groups = {{"pair", {4, 0}}, {"", {3}}, {"", {1}}, {"", {2}}};
  return layout;
}

inline Values random_values(const Layout& layout, std::uint64_t seed, double scale = 1) {
  SplitMix64 rng(seed);
  Values values;
  for (const auto& tensor : layout.tensors) {
    auto& one = values.emplace_back(static_cast<std::size_t>(tensor.elements()));
    for (auto& value : one) value = static_cast<float>(scale * (rng.uniform() - 0.5));
  }
  return values;
}

inline at::Tensor tensor_of(const std::vector<float>& values, const TensorSpec& spec) {
  auto tensor = aligned_empty(DType::f32, spec.shape);
  if (!values.empty()) std::memcpy(tensor.data_ptr(), values.data(), tensor.nbytes());
  return tensor;
}

inline void write_version(const std::filesystem::path& path, const Layout& layout, const Values& values,
                          Epoch epoch = 0) {
  PacketFileWriter file(path, version_contents({{std::string(kAdapterChannel), layout}}, epoch, "a test"),
                        Durability::Process);
  for (std::size_t i = 0; i < values.size(); ++i) {
    file.put(file.plan().contents().channels[0].entries[i].code, 0, std::as_bytes(std::span(values[i])));
  }
  file.finish();
}

inline void write_upload(const std::filesystem::path& path, const Layout& layout, const Values& values,
                         const CodecChain& codecs = {}) {
  PacketContents contents;
  contents.channels.push_back({std::string(kAdapterChannel), {}});
  std::vector<EncodedTensor> encoded;
  for (std::size_t i = 0; i < values.size(); ++i) {
    encoded.push_back(codecs.encode(tensor_of(values[i], layout.tensors[i]), {}));
    contents.channels[0].entries.push_back({layout.tensors[i].name, encoded.back().code});
  }
  const PacketPlan plan(contents);
  std::ofstream out(path, std::ios::binary);
  PacketWriter writer(plan, [&](std::span<const std::byte> bytes) {
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  });
  for (const auto& tensor : encoded) {
    for (const auto& leaf : tensor.leaves) writer.write(bytes_of(leaf));
  }
  writer.finish();
}

inline Values read_values(const std::filesystem::path& path, std::string_view channel = kAdapterChannel) {
  const MappedFile file(path);
  const PacketView view(file.bytes());
  Values values;
  for (const auto& entry : view.find(channel)->entries) {
    const auto bytes = view.bytes(entry.code);
    auto& one = values.emplace_back(bytes.size() / sizeof(float));
    if (!bytes.empty()) std::memcpy(one.data(), bytes.data(), bytes.size());
  }
  return values;
}

// ---- components

class Sum : public Stateless<Aggregator> {
 public:
  std::uint64_t workspace(const Layout&, const Group&, std::size_t) const override { return 0; }
  void reduce(const Updates& updates, Results& results) override {
    for (std::size_t member = 0; member < updates.group().members.size(); ++member) {
      auto sum = at::zeros(updates.tensor(member).shape);
      for (std::size_t client = 0; client < updates.clients(); ++client) {
        const auto delta = updates.delta(client, member);
        const auto weight = static_cast<float>(updates.who(client).weight);
        for (std::int64_t i = 0; i < sum.numel(); ++i)
          sum.data_ptr<float>()[i] += weight * delta.const_data_ptr<float>()[i];
      }
      results.put(member, sum);
    }
  }
};

// With momentum 0 it keeps no state.
class Momentum : public Stateless<ServerOptimizer> {
 public:
  explicit Momentum(float momentum = 0) : momentum_(momentum) {}
  std::vector<TensorSpec> state(const TensorSpec& parameter) const override {
    if (momentum_ == 0) return {};
    return {{"velocity", DType::f32, parameter.shape}};
  }
  void step(std::string_view, Index, at::Tensor& parameter, const at::Tensor& delta,
            std::span<at::Tensor> state) override {
    for (std::int64_t i = 0; i < parameter.numel(); ++i) {
      float move = delta.const_data_ptr<float>()[i];
      if (momentum_ != 0) move = state[0].data_ptr<float>()[i] = momentum_ * state[0].data_ptr<float>()[i] + move;
      parameter.data_ptr<float>()[i] += move;
    }
  }

 private:
  float momentum_;
};

// Noise that a test can foretell: index + 1, on every element of the sum.
class KnownNoise final : public Stateless<Privacy> {
 public:
  explicit KnownNoise(Sensitivity& seen) : seen_(seen) {}
  double clip_bound(const RoundPlan&) const override { return 1; }
  std::optional<DpEvent> event(const RoundPlan&) const override { return {}; }
  void begin_release(const RoundPlan&, const Sensitivity& sensitivity) override { seen_ = sensitivity; }
  void central(std::string_view, Index index, at::Tensor& sum, SecureRng&) override {
    for (std::int64_t i = 0; i < sum.numel(); ++i) sum.data_ptr<float>()[i] += static_cast<float>(index + 1);
  }

 private:
  Sensitivity& seen_;
};

class NoNoise final : public SecureRng {
 public:
  at::Tensor gaussian(at::IntArrayRef shape, double) override { return at::zeros(shape); }
};

// Sends each value doubled, in two halves.
class Halves final : public Stateless<Compressor> {
 public:
  SizePlan plan(const TensorSpec& in) const override {
    const auto n = in.elements();
    return {{{"", DType::f32, {n / 2}}, {"", DType::f32, {n - n / 2}}}, std::uint64_t(4 * n), std::uint64_t(4 * n)};
  }
  Encoded encode(const at::Tensor& in, Seeds) const override {
    const auto flat = in.flatten().mul(2);
    const auto half = flat.numel() / 2;
    return {{flat.narrow(0, 0, half).contiguous(), flat.narrow(0, half, flat.numel() - half).contiguous()}, ""};
  }
  at::Tensor decode(const Encoded& encoded, const TensorSpec& out, std::uint64_t) const override {
    auto made = at::zeros({out.elements()});
    made.narrow(0, 0, encoded.parts[0].numel()).copy_(encoded.parts[0]);
    made.narrow(0, encoded.parts[0].numel(), encoded.parts[1].numel()).copy_(encoded.parts[1]);
    return made.mul_(0.5).view(out.shape);
  }
};

// ---- one fold

struct Client {
  Values values;
  double weight = 1, factor = 1;
};

struct Federation {
  TemporaryDirectory folder;
  Layout layout = test_layout();
  Values base = random_values(layout, 1);
  std::vector<Client> clients;
  Instance<Aggregator> aggregator = owned<Aggregator>(std::make_unique<Sum>(), "aggregator sum");
  Instance<ServerOptimizer> optimizer = owned<ServerOptimizer>(std::make_unique<Momentum>(), "server_optimizer plain");
  Instance<Privacy> privacy;
  CodecChain codecs, downlink;
  NoNoise noise;
  FoldPlan plan;
  std::function<void()> before_release;

  explicit Federation(std::size_t count = 3) {
    for (std::size_t i = 0; i < count; ++i)
      clients.push_back({random_values(layout, 10 + i), double(i + 1), i == 1 ? 0.3 : 1});
    plan.round.round = 1;
    share_everything();
    plan.denominator = 0;
    for (const auto& client : clients) plan.denominator += client.weight;
  }
  void share_everything() {
    FoldView view;
    view.trainable = layout;
    view.exchange.roles.assign(layout.tensors.size(), Role::Shared);
    view.exchange.up = view.exchange.down = {{std::string(kAdapterChannel), layout}};
    plan.views = {view};
  }
  std::filesystem::path version(Epoch epoch) const { return folder.path() / ("version-" + std::to_string(epoch)); }
  std::filesystem::path state(Epoch epoch) const { return folder.path() / ("state-" + std::to_string(epoch)); }
  std::filesystem::path log(Epoch epoch) const { return folder.path() / ("log-" + std::to_string(epoch)); }
  std::filesystem::path spool(std::size_t client) const { return folder.path() / ("spool-" + std::to_string(client)); }

  FoldOutcome run() {
    const auto epoch = plan.round.base;
    if (epoch == 0) write_version(version(0), layout, base);
    std::vector<FoldClient> uploads;
    for (std::size_t i = 0; i < clients.size(); ++i) {
      write_upload(spool(i), layout, clients[i].values, codecs);
      FoldClient upload;
      upload.who.node = 100 + i;
      upload.who.weight = clients[i].weight;
      upload.factor = clients[i].factor;
      upload.spool = spool(i);
      uploads.push_back(upload);
    }
    plan.views[0].base = version(epoch);
    plan.views[0].next = version(epoch + 1);
    return fold(plan, uploads, {aggregator, optimizer, privacy, codecs, downlink, noise},
                {state(epoch), state(epoch + 1), log(epoch + 1), Durability::Process, before_release});
  }

  // What a weighted mean moves each tensor by, in the order of operations that the fold promises.
  Values mean() const {
    Values moved;
    for (std::size_t t = 0; t < layout.tensors.size(); ++t) {
      auto& one = moved.emplace_back(base[t].size(), 0.0f);
      for (std::size_t i = 0; i < one.size(); ++i) {
        for (const auto& client : clients) {
          const float clipped =
              client.factor == 1 ? client.values[t][i] : client.values[t][i] * static_cast<float>(client.factor);
          one[i] += static_cast<float>(client.weight) * clipped;
        }
        one[i] /= static_cast<float>(plan.denominator);
      }
    }
    return moved;
  }
};

inline Values plus(const Values& a, const Values& b) {
  Values sum = a;
  for (std::size_t t = 0; t < sum.size(); ++t) {
    for (std::size_t i = 0; i < sum[t].size(); ++i) sum[t][i] += b[t][i];
  }
  return sum;
}

}  // namespace hansa::fold
