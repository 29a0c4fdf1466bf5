// What coordinator and node say to each other, as plain values: the C++ face of hansa.capnp, free of Cap'n Proto types.
// Everyone who uses wire/ includes this. Values only: any thread. Digests are lower-case hex; tokens are raw bytes.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/digest.hpp"

namespace hansa::wire {

struct Version {
  std::uint16_t major = 0, minor = 0;
  bool operator==(const Version&) const = default;
};
inline constexpr Version kProtocol{1, 0};  // peers talk when the majors are equal
inline constexpr std::uint32_t kChunkBytes = 1u << 20;

enum class FaultCode : std::uint16_t {  // numbers are those of hansa.capnp
  None,
  Busy,
  NotSelected,
  StaleRound,
  BadChecksum,
  BadPayload,
  ProtocolVersion,
  PluginMismatch,
  BaseMismatch,
  Unauthorised,
  BudgetSpent,
  Finished,
  UnknownToken,
  TooLarge,
  NameTaken,
  Cancelled,
};
std::string_view name_of(FaultCode);

struct Fault {  // the one way in which a refusal is reported
  FaultCode code = FaultCode::None;
  std::string message;         // for a human: what, where, what to do
  bool retry = false;          // the same request may succeed later
  std::uint32_t after_ms = 0;  // not before this
};
template <class T>
using Answer = std::variant<T, Fault>;

struct Metric {
  std::string name;
  double value = 0;
};

struct PluginRef {
  std::string id, version, digest;
};
struct Resources {
  std::uint64_t ram_bytes = 0, gpu_bytes = 0;
  std::uint16_t gpus = 0;
  double uplink_bytes_per_second = 0;
};
struct Hello {
  Version protocol = kProtocol;
  std::string node;   // stable name, see is_node_name() in base/ids.hpp
  std::string build;  // "hansa 0.1.0 torch 2.13.0 cpu"
  std::string base_digest, tokenizer_digest;
  std::vector<PluginRef> plugins;
  Resources resources;
  std::uint64_t examples = 0;
  double rank = 0;
};
struct Welcome {
  Version protocol = kProtocol;
  std::string run_id;
  std::uint64_t node_id = 0;
  std::uint32_t chunk_bytes = kChunkBytes;  // 4 KiB to 16 MiB
  std::uint32_t heartbeat_ms = 1000;
};

struct BlobInfo {  // an immutable run of bytes
  Checksum xxh3;
  std::uint64_t size = 0;
  std::uint16_t format = 0;  // packet format version
};
// What a pull brings.
inline constexpr std::string_view kPullVersion = "version";  // all Latest channels: replaces what the node holds
inline constexpr std::string_view kPullPart = "part";        // those tensors that moved since from_epoch
inline constexpr std::string_view kPullLog = "log";          // the entries of the Log channels that belong to to_epoch
inline constexpr std::string_view kPullSnapshot = "snapshot";  // all entries up to to_epoch as one: replaces them
struct PullInfo {       // one transfer that brings the state from one epoch to another
  std::string channel;  // one of the four
  std::uint64_t from_epoch = 0, to_epoch = 0;
  BlobInfo blob;
};

struct Report {  // what a node says about the work that it has done
  std::uint64_t examples = 0, tokens = 0;
  std::uint32_t steps = 0;
  double seconds = 0;
  std::vector<Metric> metrics;
};
struct Receipt {  // accepted is not applied: that comes as Settled, with a later work
  std::uint64_t round = 0;
  bool accepted = false;
  std::string reason;
};
struct Settled {
  std::string token;
  bool applied = false;
  std::string reason;
};

enum class Stage : std::uint16_t { Idle, Downloading, Training, Encoding, Uploading, Evaluating };
struct Progress {
  Stage stage = Stage::Idle;
  std::uint64_t done = 0, total = 0;
  std::vector<Metric> metrics;
};
struct Directive {  // the coordinator's answer to a heartbeat
  enum class What : std::uint8_t { CarryOn, Stop, Extend };
  What what = What::CarryOn;
  std::string reason;           // of a stop
  std::uint32_t extend_ms = 0;  // lease from now on, of an extension
};

enum class Task : std::uint16_t { Train, Evaluate };
struct WorkInfo {
  Task task = Task::Train;
  std::uint64_t round = 0;
  std::uint32_t attempt = 0;
  std::uint64_t base_epoch = 0;  // version that the delta is taken against
  std::string view;
  std::string exchange;         // roles and up channels of this round, canonical bytes
  std::string pipeline_digest;  // fetched once by pipeline()
  std::uint64_t max_upload_bytes = 0;
  std::uint32_t lease_ms = 0;    // a heartbeat before this or the slot is lost
  std::string token;             // names exactly this piece of work
  std::vector<Settled> settled;  // what became of earlier uploads of this node
  std::vector<PullInfo> pulls;   // in the order in which they are applied
};

}  // namespace hansa::wire
