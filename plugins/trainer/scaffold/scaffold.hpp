// Trainer `scaffold`: the SDK's loop with SCAFFOLD's correction (arXiv 1910.06378). Each local step follows g - c_i + c: the
// node's own control variate c_i is the mean of its raw local gradients of the last round that it took part in, and c, which
// the coordinator keeps, is the mean of all nodes' c_i. Channel "control" carries c down and the changes of c_i up.
// Training thread only; fails as the loop does. In a round without channels a silo trains alone, and nothing is corrected.
#pragma once
#include <map>
#include <string>
#include <vector>

#include <train/loop.hpp>

namespace hansa::scaffold {

inline constexpr std::string_view kControl = "control";
using train::Params;

class Scaffold final : public Trainer {
 public:
  Scaffold(Params params, Host& host) : params_(params), host_(host) {}
  std::uint64_t steps(std::uint64_t examples) const override { return train::steps_of(params_, examples); }
  std::vector<Channel> up(const Layout& trainable) const override;
  std::vector<Channel> down(const Layout& trainable) const override { return up(trainable); }
  void receive(Model&, Adapter&, const Download&) override;
  bool shares_batches() const override { return true; }
  TrainResult train(Model&, Adapter&, DataSource&, const TrainContext&) override;
  std::vector<at::Tensor> outgoing(std::string_view channel) override;
  void sent(std::string_view channel, std::span<const at::Tensor> decoded) override;
  // c_i: kept from round to round, moved only by what was sent. c is not kept: it comes with every round.
  std::uint32_t state_version() const override { return 1; }
  void save(StateWriter&) const override;
  void load(const StateReader&, std::uint32_t version) override;

 private:
  using ByName = std::map<std::string, at::Tensor, std::less<>>;  // absent: zero

  Params params_;
  Host& host_;
  ByName own_, common_;
  std::vector<TensorSpec> order_;    // of the channel, in the round at hand
  std::vector<at::Tensor> changes_;  // beside order_
};

}  // namespace hansa::scaffold
