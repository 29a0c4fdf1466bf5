// The torch half of a node: model, adapter, data, trainer and codecs of one pipeline, and what is done with them. The same
// object serves one node process, a simulation's thousand nodes in turn, and the local-only baselines. One thread: the one
// that made it. Throws Error; PluginFailure names the component.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <hansa/evaluator.hpp>
#include <hansa/trainer.hpp>

#include "config/run_spec.hpp"
#include "fold/component_file.hpp"
#include "fold/packet_file.hpp"
#include "pipeline/stages.hpp"
#include "pipeline/upload.hpp"

namespace hansa::node {

struct Silo {  // one node's side of the world
  std::string name;
  std::filesystem::path data;
  std::optional<std::filesystem::path> heldout;
  std::filesystem::path state;  // where what the node keeps between rounds stands; made when needed
};

struct Trained {
  pipeline::EncodedUpdate update;
  TrainResult result;
  double seconds_train = 0, seconds_encode = 0;
};

class Worker {
 public:
  // `spec.model_host.path` is this machine's checkpoint. spec and registry outlive the worker.
  Worker(const config::RunSpec& spec, const StrategyRegistry& registry, const HostServices& services);
  ~Worker();

  // Of the adapter, from config.json alone: what the coordinator needs, without weights.
  static Layout layout(const config::RunSpec&, const StrategyRegistry&, const HostServices&);
  const Layout& layout() const { return layout_; }
  Model& model() { return *model_; }
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }

  fold::PacketFile write_initial(const std::filesystem::path& version, Durability);  // epoch 0
  void load(const std::filesystem::path& version);  // the adapter becomes this version's
  // One turn: load the version, train on the silo, clip, noise and encode the change.
  Trained train(const Silo&, const std::filesystem::path& version, const pipeline::WorkOrder&,
                const std::string& token);
  // What a silo alone would make of the same version, in the same number of turns: the local-only baseline.
  void train_alone(const Silo&, const std::filesystem::path& version, Round rounds);
  void save(const std::filesystem::path& version, Durability) const;  // the adapter as it is now
  Metrics evaluate(const std::filesystem::path& heldout);             // of the adapter as it is now; sums
  Metrics evaluate_base(const std::filesystem::path& heldout);        // without the adapter
  void export_adapter(const std::filesystem::path& directory);
  void enable_adapter(bool enabled);

  // What became of earlier work: pending state is promoted or dropped.
  void settled(const Silo&, const std::string& token, bool applied);

 private:
  TrainResult take_turn(const Silo&, const TrainContext&);
  void begin_state(const Silo&);
  void keep_pending(const Silo&, const std::string& token);
  PacketContents contents() const;

  const config::RunSpec& spec_;
  std::vector<Module> modules_;
  Instance<Model> model_;
  Instance<Adapter> adapter_;
  Instance<Trainer> trainer_;
  Instance<DataSource> data_, heldout_;
  Instance<Evaluator> evaluator_;
  Instance<Privacy> privacy_;
  pipeline::Codecs codecs_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<SecureRng> noise_;
  fold::ComponentStates fresh_;  // the trainer as created
  Layout layout_;
};

}  // namespace hansa::node
