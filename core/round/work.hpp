// The values that the round logic hands out and takes back: work, claims, receipts, settled outcomes, refusals. They mirror
// the wire's structs without knowing the wire; coordinator/ translates.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <hansa/types.hpp>

#include "base/digest.hpp"

namespace hansa {

struct WorkItem {
  enum class Task : std::uint8_t { Train, Evaluate };
  Task task = Task::Train;
  Round round = 0;            // Evaluate: the epoch that is evaluated
  std::uint32_t attempt = 0;  // from 1; 0 for Evaluate
  Epoch base = 0;             // version that the delta is taken against, or that is evaluated
  NodeId node = 0;
  std::string token;  // printable; names exactly this piece of work, the same again after a restart of either side
  bool operator==(const WorkItem&) const = default;
};

struct Refusal {  // an expected "no"; the wire's Fault
  enum class Code : std::uint8_t {
    Busy,          // disk full: nothing accepted was lost, ask again later
    NotSelected,   // the node has no part in what runs now
    StaleRound,    // the token is genuine, its round or attempt is over
    UnknownToken,  // never issued by this run
    BadChecksum,
    BadPayload,
    TooLarge,
    Finished,
  };
  Code code = Code::Busy;
  std::string message;  // a sentence: what, and what to do
  bool retry = false;   // the same request may succeed later
  std::uint32_t after_ms = 0;
};

struct Claims {  // what a node says that it did: never trusted; its metrics are withheld under DP
  std::uint64_t examples = 0, tokens = 0, steps = 0;
  double seconds = 0;
  Metrics metrics;
  bool operator==(const Claims&) const = default;
};

struct Upload {  // facts about one complete, screened upload
  std::uint64_t size = 0;
  Checksum checksum;
  Claims claims;
  double norm = 0;         // L2 of the decoded delta, as the coordinator measured it
  double clip_factor = 1;  // what the coordinator multiplies it by
  bool accepted = false;
  std::string reason;  // why not, when not accepted
  bool operator==(const Upload&) const = default;
};
struct Accepted {  // one member of the cohort that is folded
  NodeId node = 0;
  Upload upload;
};

struct Receipt {  // of a complete upload. Accepted is not applied: see Settled
  Round round = 0;
  bool accepted = false;
  std::string reason;
  bool operator==(const Receipt&) const = default;
};

struct Settled {  // what became of one piece of training work
  std::string token;
  bool applied = false;  // else discarded
  std::string reason;    // why discarded
  bool operator==(const Settled&) const = default;
};

struct Version {  // a released version file
  Epoch epoch = 0;
  std::uint64_t size = 0;
  Checksum checksum;
  bool operator==(const Version&) const = default;
};

struct Progress {  // carried by heartbeats; for display only
  enum class Stage : std::uint8_t { Idle, Downloading, Training, Encoding, Uploading, Evaluating };
  Stage stage = Stage::Idle;
  std::uint64_t done = 0, total = 0;
};
struct Directive {     // the answer to a heartbeat
  bool stop = false;   // else carry on
  std::string reason;  // why stop
};

}  // namespace hansa
