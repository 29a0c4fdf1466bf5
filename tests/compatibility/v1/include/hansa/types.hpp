// Names, shapes, layouts and plans that cross the plugin boundary and the wire. Torch-free: the round logic, the wire and
// the config see these types and no tensor. Values; nothing here owns a resource. Frozen per kind revision.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hansa {

using NodeId = std::uint64_t;  // stable hash of the node's name; ascending NodeId is the order of every reduction
using Round = std::uint64_t;   // from 1
using Epoch = std::uint64_t;   // version of the global state; 0 is the initial one
using Index = std::uint32_t;   // position of a tensor in a Layout
using Metrics = std::vector<std::pair<std::string, double>>;

enum class DType : std::uint8_t {
  f32 = 0,
  f16 = 1,
  bf16 = 2,
  f8e4m3 = 3,
  i8 = 4,
  u8 = 5,
  i32 = 6,
  i64 = 7
};  // numbers stand in files

constexpr std::size_t size_of(DType type) {
  switch (type) {
    case DType::f32:
    case DType::i32: return 4;
    case DType::f16:
    case DType::bf16: return 2;
    case DType::i64: return 8;
    case DType::f8e4m3:
    case DType::i8:
    case DType::u8: return 1;
  }
  return 0;
}
constexpr std::string_view name_of(DType type) {
  switch (type) {
    case DType::f32: return "f32";
    case DType::f16: return "f16";
    case DType::bf16: return "bf16";
    case DType::f8e4m3: return "f8e4m3";
    case DType::i8: return "i8";
    case DType::u8: return "u8";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
  }
  return "?";
}

struct TensorSpec {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;  // one extent may be -1: a list whose length the sender decides
  std::int64_t elements() const {
    std::int64_t count = 1;
    for (auto extent : shape) count *= extent;
    return count;
  }
  bool operator==(const TensorSpec&) const = default;
};

struct
    Group {  // tensors that mean something only together: {"lora", {A, B}, alpha/r}; a lone tensor is a group of one, kind ""
  std::string kind;
  std::vector<Index> members;
  double scale = 1;
  bool operator==(const Group&) const = default;
};

struct Layout {
  std::vector<TensorSpec> tensors;
  std::vector<Group> groups;  // a partition of the tensors
  bool operator==(const Layout&) const = default;
};

// What becomes of one trainable tensor in one round.
enum class Role : std::uint8_t {
  Frozen,    // part of the shared model, at rest this round: neither trained nor shipped (RoLoRA's other half)
  Shared,    // trained, shipped, reduced
  Personal,  // trained, and never leaves the node, which keeps it (FedSA-LoRA's B)
  Derived,   // made by every node itself from the base and what it receives: never shipped, never kept (FedKSeed)
};
enum class Carry : std::uint8_t {
  Sum,   // real numbers: joint clip, codecs and noise, then the aggregator's rule, the weights and the server optimiser
  Mean,  // real numbers: joint clip, codecs and noise; then the host adds their plain sum over the registered population
         // to what stands. No weights, no rule, no optimiser (SCAFFOLD's control variate)
  Collect,  // carried as it is to the aggregator: seeds, logits, centroids, text. Refused under differential privacy
};
enum class Keep : std::uint8_t {
  Latest,  // a download replaces what the node holds
  Log,     // entries are appended; a node that was away gets all since its epoch
};
struct Channel {
  std::string name;          // "adapter" is the trainable layout itself
  Layout layout;             // Collect and Log: one extent of a shape may be -1, a length that the sender decides
  Carry carry = Carry::Sum;  // upwards
  Keep keep = Keep::Latest;  // downwards
  bool for_trainer = false;  // downwards: who receives it on the node, the adapter or the trainer
};
inline constexpr std::string_view kAdapterChannel = "adapter";

// What one round trains and moves for nodes of one view; known before it starts. An aggregator names the view, the roles
// and the channels beyond "adapter"; the host adds "adapter" at the front (up: what is Shared; down: what is Shared or
// Frozen) and the trainer's channels at the end. View and `down` are the same in every round of a run.
struct Exchange {
  std::string view;         // nodes of one view share shapes and downloads; "" is the pipeline's own and always there
  std::vector<Role> roles;  // one per tensor of the trainable layout
  std::vector<Channel> up, down;
};

struct NodeFacts {
  NodeId node = 0;
  std::uint64_t examples = 0;  // the node's claim
  double rank = 0;             // what its adapter is configured for; 0: the pipeline's
  double uplink_bytes_per_second = 0;
  Round last_seen = 0;
};

// What neighbouring data sets are, for a privacy guarantee: it decides the sensitivity of the sum and what the sampling rate
// may be. Ledger and report name it, because the same epsilon means different things.
enum class Adjacency : std::uint8_t {  // numbers stand in journals
  AddRemove = 0,                       // a node is there or not: cohorts drawn node by node (Poisson), or everyone
  ZeroOut = 1,     // a node's contribution becomes zero, the cohort stays: any other selector, at sampling rate 1
  ReplaceOne = 2,  // removing a node brings another in: sensitivity is twice the clip bound, at sampling rate 1
};

struct RoundPlan {
  Round round = 0;
  std::uint32_t attempt = 0;
  Epoch base = 0;
  std::size_t population = 0;                  // registered nodes
  double expected_cohort = 0;                  // planned, public: the denominator under central DP
  double sampling_rate = 1;                    // 1 where nothing is amplified
  std::vector<NodeFacts> cohort;               // ascending NodeId
  Adjacency adjacency = Adjacency::AddRemove;  // follows from selector and policy (rule 9 of `hansa check`); the host's
};

struct Contribution {  // what the coordinator believes about one update
  NodeId node = 0;
  std::string view;
  double weight = 1;                                  // the host's: by examples, tokens or uniform, capped
  std::uint64_t examples = 0, tokens = 0, steps = 0;  // the node's claims: never trust them; withheld under DP
};

struct RoundStatus {                                               // what a round policy decides on
  std::size_t cohort = 0, accepted = 0, running = 0, refused = 0;  // running: assigned or not yet asked for
  double seconds = 0;                                              // since the round opened
};
enum class Next : std::uint8_t { Wait, Close, Abort };

struct TrainResult {
  std::uint64_t examples = 0, tokens = 0, steps = 0;
  Metrics metrics;  // "loss" (mean nats per counted token) at least
};

}  // namespace hansa
