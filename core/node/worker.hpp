// The torch half of a node: model, adapter, data, trainer and codecs of one pipeline, and what is done with them. The same
// object serves one node process, a simulation's thousand nodes in turn, and the local-only baselines. One thread: the one
// that made it. Throws Error; PluginFailure names the component.
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <hansa/evaluator.hpp>
#include <hansa/trainer.hpp>

#include "config/run_spec.hpp"
#include "fold/component_file.hpp"
#include "fold/packet_file.hpp"
#include "fold/served.hpp"
#include "fold/standing.hpp"
#include "peers/group.hpp"
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

struct WorkerOptions {
  double rank = 0;                   // of the adapter; 0: the pipeline's
  std::optional<at::Device> device;  // nothing: what [model] device means on this machine
  peers::Group* group = nullptr;     // null: the silo is trained by this process alone; outlives the worker
};

class Worker {
 public:
  // `spec.model_host.path` is this machine's checkpoint. spec and registry outlive the worker. Throws Error for a device that is
  // not there, and for a trainer that trains in one process only where there is a group.
  Worker(const config::RunSpec& spec, const StrategyRegistry& registry, const HostServices& services,
         const WorkerOptions& = {});
  ~Worker();

  const Layout& layout() const { return layout_; }
  Model& model() { return *model_; }
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }

  // Epoch 0: what this adapter stands at before any round, as far as versions hold it; other channels begin at zero.
  void write_initial(const std::filesystem::path& version, const std::vector<Channel>& down, Durability);
  // The adapter becomes this version's. `down` says whose the channels are; `silo`, whose personal part is put in.
  // `round`: what it is loaded for, as messages name it.
  void load(const fold::Standing&, const std::vector<Channel>& down, const Silo* silo = nullptr,
            std::optional<Round> round = {});
  // One turn: load the version, train on the silo, clip, noise and encode the change. In a group the others assist() at the same
  // time, with the same arguments: where one cannot, all throw. Throws peers::OutOfStep where they can no longer go on.
  Trained train(const Silo&, const fold::Standing&, const pipeline::WorkOrder&, const std::string& token);
  void assist(const Silo&, const fold::Standing&, const pipeline::WorkOrder&);
  // Where what a silo keeps between rounds stands, when it keeps something.
  static std::filesystem::path kept_state_of(const Silo&);
  // What a silo alone would make of the adapter as it was created, by the turns of these rounds: the local-only baseline.
  void train_alone(const Silo&, std::span<const Round> taken);
  void save(const std::filesystem::path& file, Durability) const;  // the adapter as it is now, personal part and all
  void load_saved(const std::filesystem::path& file);              // what save() wrote
  Metrics evaluate(const std::filesystem::path& heldout);          // of the adapter as it is now; sums
  Metrics evaluate_base(const std::filesystem::path& heldout);     // without the adapter
  void export_adapter(const std::filesystem::path& directory);
  std::vector<Injection> injections();
  void enable_adapter(bool enabled);

  // What became of earlier work: pending state is promoted or dropped.
  void settled(const Silo&, const std::string& token, bool applied);

 private:
  void receive(const fold::Held&, const fold::Standing&, const std::vector<Channel>& down);
  enum class Receiver : std::uint8_t { Adapter, Trainer };
  void hand_over(const Download&, Receiver);
  void forget_log();
  std::vector<std::vector<at::Tensor>> changes(const fold::Held&, const Exchange&);
  TrainContext context_of(const Silo&, const pipeline::WorkOrder&) const;
  TrainResult take_turn(const Silo&, const TrainContext&);
  TrainResult take_turn_together(const Silo&, const fold::Standing&, const pipeline::WorkOrder&);
  void share_parameters();
  void begin_state(const Silo&);
  void keep_pending(const Silo&, const std::vector<Role>&, const std::string& token);
  bool keeps_state(const std::vector<Role>&) const;
  CallPlace place(std::string_view doing, std::string_view tensor = {}) const { return {doing, round_, node_, tensor}; }
  at::Tensor parameter(Index) const;

  const config::RunSpec& spec_;
  peers::Group* group_;
  std::vector<Module> modules_;
  Instance<Model> model_;
  Instance<Adapter> adapter_;
  Instance<Trainer> trainer_;
  Instance<DataSource> data_, heldout_;
  Instance<Evaluator> evaluator_;
  Instance<Privacy> privacy_;
  pipeline::Codecs codecs_, downlink_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<SecureRng> noise_;
  fold::ComponentStates fresh_;  // the trainer as created
  Layout layout_;
  std::vector<at::Tensor> created_;          // what no version held so far, as it was created
  Epoch received_ = 0;                       // log entries up to here are with adapter and trainer
  std::map<std::string, Receiver> begun_;    // Log channels of which they have something
  pipeline::TensorStore personal_, memory_;  // of the silo in hand
  std::optional<Round> round_;               // of the work in hand, and whose it is
  std::optional<NodeId> node_;
};

}  // namespace hansa::node
