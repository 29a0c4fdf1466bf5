// What every component is: something with state that can be saved between rounds. The interfaces of the kinds derive
// from Component; a factory gives each instance a Host.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include <hansa/types.hpp>

struct HansaValue;

namespace hansa {

class StateWriter {
 public:
  virtual ~StateWriter() = default;
  virtual void put(std::string_view key, const at::Tensor& value) = 0;  // copied
  virtual void put(std::string_view key, std::string_view bytes) = 0;
};
class StateReader {
 public:
  virtual ~StateReader() = default;
  virtual bool has(std::string_view key) const = 0;
  virtual at::Tensor tensor(std::string_view key) const = 0;  // throws when absent
  virtual std::string bytes(std::string_view key) const = 0;
};

class Component {
 public:
  Component() = default;
  Component(const Component&) = delete;
  Component& operator=(const Component&) = delete;
  virtual ~Component() = default;
  virtual std::uint32_t state_version() const = 0;  // 0: stateless, declared so
  virtual void save(StateWriter&) const = 0;        // between rounds only
  virtual void load(const StateReader&, std::uint32_t version) = 0;
};

// Gives a stateless component the three bodies: class FedAvg : public Stateless<Aggregator>.
template <class Interface>
class Stateless : public Interface {
 public:
  std::uint32_t state_version() const final { return 0; }
  void save(StateWriter&) const final {}
  void load(const StateReader&, std::uint32_t) final {}
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// What a node receives of a channel other than "adapter": one entry of a log, or the latest state. Entries of a log come
// oldest first. Tensors are valid until the call that got them returns.
struct Download {
  std::string channel;
  Epoch epoch = 0;    // of the version that it belongs to
  bool anew = false;  // forget what came before it: a Latest channel, the first entry of a log, or a compacted one
  NamedTensors tensors;
};

// Given to every factory; valid for the component's life; every method may be called from any thread.
class Host {
 public:
  enum class Level : int { Debug, Info, Warning, Error };
  virtual ~Host() = default;
  virtual void log(Level, std::string_view message) = 0;
  virtual void progress(std::uint64_t done, std::uint64_t total) = 0;
  virtual bool cancelled() const = 0;  // poll it in anything longer than 100 ms
  virtual void parallel_for(std::size_t n,
                            const std::function<void(std::size_t)>& body) = 0;  // plugins start no threads
  virtual std::uint64_t seed(
      std::string_view purpose) const = 0;  // from the run's seed, this component and the purpose
  // An inner component (ComponentChoice::params, schema.hpp) as its kind's interface: host.inner<Aggregator>(choice.params).
  // Throws when there is none. It may outlive the call, not the component that asked.
  template <class Interface>
  std::shared_ptr<Interface> inner(const HansaValue& choice) {
    return std::static_pointer_cast<Interface>(create_inner(Interface::kKind, choice));
  }

 protected:
  virtual std::shared_ptr<void> create_inner(std::string_view kind, const HansaValue& choice) {
    throw std::runtime_error("this host makes no inner components");
  }
};

}  // namespace hansa
