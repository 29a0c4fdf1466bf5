// The server optimiser's tensors beside a version: read from the last one's file, written to the next one's, tensor by tensor.
// Tensors at rest keep theirs. Private to fold/. Throws Error.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <hansa/server_optimizer.hpp>

#include "fold/views.hpp"

namespace hansa::fold {

class OptimizerState {
 public:
  // `parameters`: what a version holds of the adapter.
  OptimizerState(const Layout& parameters, const ServerOptimizer&, const FoldFiles&);
  std::vector<at::Tensor> load(const std::string& parameter) const;  // zero at the start
  void store(const std::string& parameter, const std::vector<at::Tensor>&);
  std::optional<PacketFile> finish();  // nothing: this optimiser keeps none

 private:
  std::map<std::string, std::vector<TensorSpec>, std::less<>> specs_;  // by parameter, named as in the packet
  std::unique_ptr<PacketFileWriter> next_;
  std::unique_ptr<MappedPacket> last_;
  std::map<std::string, const Code*, std::less<>> leaves_;
  std::map<std::string, bool, std::less<>> stored_;
};

}  // namespace hansa::fold
