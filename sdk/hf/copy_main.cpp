// hf_copy FROM TO: a safetensors file through our reader and our writer. For the test that compares with the reference.
#include <cstdio>

#include "hf/safetensors.hpp"

int main(int count, char** arguments) {
  using namespace hansa;
  if (count != 3) {
    std::fputs("usage: hf_copy FROM TO\n", stderr);
    return 2;
  }
  try {
    const hf::SafetensorsFile from(arguments[1]);
    std::vector<TensorSpec> specs;
    for (const auto& tensor : from.tensors()) {
      if (!tensor.dtype) throw Error(tensor.name + ": a dtype that we do not write");
      specs.push_back({tensor.name, *tensor.dtype, tensor.shape});
    }
    hf::SafetensorsWriter to(arguments[2], std::move(specs), from.metadata());
    for (const auto& tensor : from.tensors()) to.write(tensor.name, tensor.bytes);
    to.finish();
    return 0;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "hf_copy: %s\n", problem.what());
    return 1;
  }
}
